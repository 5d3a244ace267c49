/**
 * Which scenarios share a VM, and with it a daemon: both take half a minute to start under emulation. A hang also
 * ends the later scenarios of its VM, and VMs run in parallel, so scenarios are spread over a few. The groups start
 * in this order: long ones first, so that no VM is left to work alone at the end.
 */

/** Environment variables of scenarios, passed into the VM if set. */
export const VARIABLES = {
  SEED: "TEXT: replays a random test with the seed that it printed",
  SAMPLE: "TEXT: of what is proved beside the driver too, a part, by this seed: see --sampled",
  KILLS: "N: how often the torture test kills the daemon (8; 5 of a sample)",
  POINTS:
    "PATTERN: the fault points at which the daemon dies (an eighth or, of a sample, half of that, by SEED; all: POINTS=.)",
  E2E_TIME_LIMIT_S: "SECONDS: raises the limits that only end what hangs",
  UBLK_GARBAGE_REQUESTS: "N: requests of garbage that the ublk driver gets",
  CI: "1: what the kernel does not have fails instead of being passed over",
  E2E_TRACE: "1: prints every command with its duration",
};

/**
 * Files are scenarios, or tests of a package as PACKAGE/vm-test/NAME. `isQuick` is what `npm test` runs, one group for each
 * processor of a small machine: of a file that is in another group too, those of `test.quick`, which that one leaves out;
 * `cpus` is for what runs at the same time within one guest; `kernel` is a series that
 * tools/vm knows, the stock one where it is not given. Of each list of `inTurns` a sample has one file: those of a list ask
 * the driver for things of one kind, and cost about the same.
 * @typedef {{name: string, files: string[], inTurns?: string[][], isQuick?: boolean, ownDaemons?: boolean, cpus?: number, kernel?: string}} Group
 */

/** @type {Group[]} */
export const GROUPS = [
  {
    name: "use",
    isQuick: true,
    files: ["command-line", "file-systems", "cbt", "overflow"],
  },
  {
    name: "lives",
    isQuick: true,
    files: ["crash"],
    ownDaemons: true,
  },
  {
    name: "kills",
    files: [],
    inTurns: [["fault-points", "torture"]],
    ownDaemons: true,
  },
  {
    name: "state",
    files: [],
    inTurns: [
      ["changes", "backup", "backup-targets", "command-line"],
      ["nbd", "mount", "pull-backup"],
      ["stores", "store-conflicts"],
      ["overflow-policy", "capacity", "overflow"],
    ],
  },
  {
    name: "kept",
    files: ["persistent", "area-journal"],
    inTurns: [
      ["written-stores", "continuity", "nbd-kernel", "nbd-devices", "backup-freed", "older-state"],
    ],
    ownDaemons: true,
  },
  {
    name: "daemons",
    files: ["readme"],
    inTurns: [
      ["installed", "no-memory", "hooks"],
      ["liveness", "killed-waiting", "live-deaths", "growth"],
      ["identity", "crash-strangers", "geometry"],
    ],
    ownDaemons: true,
  },
  {
    name: "data",
    cpus: 2,
    files: [],
    inTurns: [["random-io", "one-instant"]],
  },
  {
    name: "images",
    files: [],
    inTurns: [
      ["image-compare", "corrupt", "image-write"],
      ["discard", "boundary", "cbt"],
    ],
  },
  {
    // What depends on the kernel's ublk: life and death of servers, recovery, partitions.
    name: "newest",
    kernel: "newest",
    files: [],
    inTurns: [
      ["reactor-loss", "ended-by-others"],
      ["ublk/vm-test/memory.vm-test", "ublk/vm-test/faults.vm-test"],
    ],
    ownDaemons: true,
  },
  {
    name: "packages",
    files: [],
    inTurns: [
      ["driver/vm-test/embedded.vm-test", "ublk/vm-test/faults.vm-test", "reactor-loss"],
      [
        "ublk/vm-test/file.vm-test",
        "ublk/vm-test/examples.vm-test",
        "ublk/vm-test/memory.vm-test",
        "ublk/vm-test/no-garbage.vm-test",
      ],
    ],
    ownDaemons: true,
  },
  {
    name: "trouble",
    files: ["live"],
    inTurns: [
      ["fronts", "stretch"],
      ["several-snapshots", "ended-by-others"],
      ["disk-errors", "pullout"],
    ],
  },
  {
    name: "freezing",
    files: ["freeze"],
    ownDaemons: true,
  },
  {
    name: "hand-over",
    files: ["daemon", "crash"],
    inTurns: [["upgrade", "doctor"]],
    ownDaemons: true,
  },
  {
    name: "hangs",
    files: [],
    inTurns: [
      ["hung-stores", "hung-daemons"],
      ["hung-recovery", "hung-device", "hung-file-system"],
    ],
    ownDaemons: true,
  },
  {
    name: "misuse",
    files: [],
    inTurns: [
      ["bad-input", "errnos"],
      ["overlap", "hostile-requests"],
    ],
  },
  {
    name: "deaths",
    files: [],
    inTurns: [["damaged-state", "late-notice"]],
    ownDaemons: true,
  },
  {
    name: "failures",
    files: [],
    inTurns: [
      ["store-errors", "memory-pressure"],
      ["file-system-stress", "destroy-in-use", "destroy-read-by-others", "file-systems"],
    ],
  },
];
