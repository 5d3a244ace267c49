/** The command line of blksnap, to be run from other programs. */
export { main } from "./main.js";
