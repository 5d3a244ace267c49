/** For tests of this API's users. */
export * from "./units.js";
