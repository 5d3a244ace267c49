export { BlksnapError, type BlksnapErrorOptions } from "./blksnap-error.js";
export { describeFailure, errnoNameOf, messageOf } from "./describe.js";
export { errnoName, errnoNumber } from "./errno.js";
