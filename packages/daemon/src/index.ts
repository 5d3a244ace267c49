/** The daemon of blksnap, for programs that start it. */
export { main } from "./main.js";
