/**
 * Which scenarios share a VM, and with it a daemon: both take seconds to start. One that hangs takes
 * those down that come after it, so they are spread over a few.
 */

/** @typedef {{name: string, files: string[], ownDaemons?: boolean}} Group */

/** @type {Group[]} */
export const GROUPS = [
  {
    name: "use",
    files: ["command-line", "bad-input", "file-systems", "file-system-stress", "destroy-in-use"],
  },
  {
    name: "data",
    files: ["random-io", "image-compare", "one-instant", "discard"],
  },
  {
    name: "state",
    files: ["stores", "overflow", "overflow-policy", "cbt"],
  },
  {
    name: "daemons",
    files: ["daemon", "crash", "freeze"],
    ownDaemons: true,
  },
];
