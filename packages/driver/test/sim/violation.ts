/** The driver violated the model. */
export class Violation extends Error {}
