/**
 * Which scenarios share a VM. One that hangs takes those down that come after it in the same VM,
 * so they are spread over a few; each boot costs seconds, so they are few.
 */

/** @typedef {{name: string, files: string[]}} Group */

/** @type {Group[]} */
export const GROUPS = [
  {
    name: "file systems",
    files: ["file-systems"],
  },
];
