/**
 * Which scenarios share a VM, and with it a daemon: both take seconds to start. One that hangs takes
 * those down that come after it, so they are spread over a few.
 */

/** @typedef {{name: string, files: string[], ownDaemons?: boolean}} Group */

/** @type {Group[]} */
export const GROUPS = [
  { name: "file systems", files: ["file-systems", "destroy-in-use"] },
  { name: "data", files: ["random-io", "image-compare", "one-instant"] },
  { name: "state", files: ["overflow", "cbt"] },
  { name: "own daemons", files: ["crash"], ownDaemons: true },
];
