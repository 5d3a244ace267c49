/** The daemon of blksnap, to be started from other programs. */
export { main } from "./main.js";
