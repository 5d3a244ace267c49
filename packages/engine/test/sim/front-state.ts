/** Where the requests of a front are, as its users see it. */

export const FRONT_DEPTH = 8;
export const FrontState = { FREE: 0, SUBMITTED: 1, ISSUED: 2, DONE: 3 } as const;
