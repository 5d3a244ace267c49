/** For tests of users of this API. */
export * from "./units.js";
