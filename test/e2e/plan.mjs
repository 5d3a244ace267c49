/**
 * Which scenarios share a VM, and with it a daemon: both take seconds to start. One that hangs takes
 * those down that come after it, so they are spread over a few.
 */

/** What scenarios read from the environment; passed into the VM where it is set. */
export const VARIABLES = {
  SEED: "TEXT: replays a random test with the seed that it printed",
  KILLS: "N: how often the torture test kills the daemon (50)",
  POINTS: "PATTERN: the fault points at which the daemon dies (all)",
  E2E_TIME_LIMIT_S: "SECONDS: raises the limits that only end what hangs",
  UBLK_GARBAGE_REQUESTS: "N: requests of garbage that the ublk driver gets",
  CI: "1: what the kernel does not have fails instead of being passed over",
  E2E_TRACE: "1: prints every command with its duration",
};

/**
 * Files are scenarios, or tests of a package as PACKAGE/vm-test/NAME. `kernel` is a series that tools/vm knows; the stock one
 * where it is not given.
 * @typedef {{name: string, files: string[], ownDaemons?: boolean, kernel?: string}} Group
 */

/** @type {Group[]} */
export const GROUPS = [
  {
    name: "use",
    files: ["command-line", "fronts", "file-systems", "file-system-stress", "destroy-in-use"],
  },
  {
    name: "misuse",
    files: ["bad-input", "errnos", "overlap", "hostile-requests"],
  },
  {
    name: "data",
    files: ["random-io", "image-compare", "one-instant", "discard", "boundary", "corrupt"],
  },
  {
    name: "state",
    files: [
      "stores",
      "store-conflicts",
      "overflow",
      "overflow-policy",
      "cbt",
      "changes",
      "capacity",
    ],
  },
  {
    name: "trouble",
    files: [
      "stretch",
      "image-write",
      "several-snapshots",
      "disk-errors",
      "pullout",
      "ended-by-others",
    ],
  },
  {
    name: "kept",
    files: ["persistent", "continuity", "area-journal"],
    ownDaemons: true,
  },
  {
    name: "daemons",
    files: [
      "readme",
      "daemon",
      "liveness",
      "crash",
      "reactor-loss",
      "identity",
      "killed-waiting",
      "freeze",
      "no-memory",
      "geometry",
    ],
    ownDaemons: true,
  },
  {
    name: "hand-over",
    files: ["upgrade", "doctor"],
    ownDaemons: true,
  },
  {
    name: "deaths",
    files: ["damaged-state", "late-notice", "hung-recovery", "hung-device"],
    ownDaemons: true,
  },
  {
    name: "failures",
    files: ["store-errors", "memory-pressure"],
  },
  {
    name: "hangs",
    files: ["hung-stores", "hung-file-system"],
    ownDaemons: true,
  },
  {
    name: "torture",
    files: ["torture"],
    ownDaemons: true,
  },
  {
    name: "fault points",
    files: ["fault-points"],
    ownDaemons: true,
  },
  {
    // What depends on the kernel's ublk: life and death of servers, recovery, partitions.
    name: "newest kernel",
    kernel: "newest",
    files: [
      "ublk/vm-test/memory.vm-test",
      "ublk/vm-test/faults.vm-test",
      "fronts",
      "reactor-loss",
      "ended-by-others",
      "crash",
    ],
    ownDaemons: true,
  },
];
