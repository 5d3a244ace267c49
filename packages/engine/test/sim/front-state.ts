/** The states of a front's requests, as its users see them. */

export const FRONT_DEPTH = 8;
export const FrontState = { FREE: 0, SUBMITTED: 1, ISSUED: 2, DONE: 3 } as const;
