export const FrontState = { FREE: 0, SUBMITTED: 1, ISSUED: 2, DONE: 3 } as const;
