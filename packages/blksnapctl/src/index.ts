/** The command line of blksnap, for programs that run it. */
export { main } from "./main.js";
