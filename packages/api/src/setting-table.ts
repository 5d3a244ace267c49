/**
 * The daemon's settings, each defined once: its name in the code and on blksnapd's command line, its values, its
 * default and its meaning. Types, defaults, checks, help and README follow from it.
 */
interface Described {
  /** On the command line of blksnapd, without dashes. */
  readonly option: string;
  /** Shown in help in place of a default that depends on the machine. */
  readonly defaultText?: string;
  /** Its meaning; help adds range and default. */
  readonly help: string;
  /** Passed by the supervisor to the daemons that it starts; not in help. */
  readonly internal?: true;
  /** Concerns one run, or is passed by the process that starts it; not allowed in the configuration file. */
  readonly commandLineOnly?: true;
}

export interface PathSetting extends Described {
  readonly type: "path";
  readonly default?: string;
}

export interface FlagSetting extends Described {
  readonly type: "flag";
  readonly default?: boolean;
}

/** A whole number of the unit that the type names. */
export interface NumberSetting extends Described {
  readonly type: "count" | "bytes" | "ms";
  readonly least: number;
  readonly most: number;
  readonly multipleOf?: number;
  readonly default?: number;
}

/** An IP address and a port, as 192.0.2.1:10809 or [2001:db8::1]:10809. */
export interface AddressSetting extends Described {
  readonly type: "address";
  readonly default?: string;
}

/** A level of the log. */
export interface LevelSetting extends Described {
  readonly type: "level";
  readonly default: string;
}

/** One of a few words. */
export interface ChoiceSetting extends Described {
  readonly type: "choice";
  readonly choices: readonly string[];
  readonly default: string;
}

export type Setting =
  | PathSetting
  | FlagSetting
  | NumberSetting
  | AddressSetting
  | LevelSetting
  | ChoiceSetting;
export type SettingTable = Readonly<Record<string, Setting>>;

type ValueOf<S extends Setting> = S extends PathSetting | AddressSetting | LevelSetting
  ? string
  : S extends ChoiceSetting
    ? S["choices"][number]
    : S extends FlagSetting
      ? boolean
      : number;
/** Values of the given settings of a table. */
export type SettingValues<Table extends SettingTable> = {
  readonly [Name in keyof Table]?: ValueOf<Table[Name]>;
};
/** The defaults. */
export type SettingDefaults<Table extends SettingTable> = {
  readonly [Name in keyof Table as Table[Name] extends { readonly default: unknown }
    ? Name
    : never]: ValueOf<Table[Name]>;
};

const HOUR_MS = 3_600_000;

/** How the driver treats the devices. */
export const SETTINGS = {
  frontend: {
    option: "frontend",
    type: "choice",
    choices: ["ublk", "nbd"],
    // Users of what another kind has made would wait for it.
    commandLineOnly: true,
    default: "ublk",
    help:
      "how users reach fronts and images. ublk: as block devices. nbd: as NBD exports, without " +
      "the ublk driver, also for users who are not root",
  },
  stateDirectory: {
    option: "state-dir",
    type: "path",
    // A daemon with another directory would not find the fronts that wait: no file may change it.
    commandLineOnly: true,
    // Private, and separate from the socket, whose folder the group may enter.
    default: "/run/blksnap/state",
    help: "where maps are kept, on tmpfs",
  },
  persistentDirectory: {
    option: "persistent-dir",
    type: "path",
    default: "/var/lib/blksnap",
    help: "where persistent trackers and snapshots are kept, on a disk that is not tracked",
  },
  reactors: {
    option: "reactors",
    type: "count",
    least: 1,
    most: 16,
    defaultText: "one per CPU, at most 4",
    help: "threads that serve devices, 1 to 16",
  },
  frontDepth: {
    option: "front-depth",
    type: "count",
    least: 1,
    most: 4096,
    default: 64,
    help: "requests in flight per tracked device",
  },
  imageDepth: {
    option: "image-depth",
    type: "count",
    least: 1,
    most: 4096,
    default: 32,
    help: "requests in flight per image",
  },
  maxIoBytes: {
    option: "max-io",
    type: "bytes",
    least: 4096,
    most: 32 * 2 ** 20,
    multipleOf: 4096,
    defaultText: "1048576 with zero copy, else 524288",
    help: "largest read or write, a multiple of 4096",
  },
  zeroCopy: {
    option: "zero-copy",
    type: "choice",
    choices: ["auto", "off"],
    default: "auto",
    help:
      "auto: fronts pass on their users' pages without a copy, if kernel and device support " +
      "that; off: new fronts copy",
  },
  /** diff_storage_minimum of the kernel module. */
  portionBytes: {
    option: "diff-storage-minimum",
    type: "bytes",
    least: 2 ** 19,
    most: 2 ** 46,
    default: 2 ** 30,
    help: "step by which diff storages grow",
  },
  freezeTimeoutMs: {
    option: "freeze-timeout",
    type: "ms",
    least: 1,
    most: HOUR_MS,
    default: 10_000,
    help: "time limit for freezing file systems at take",
  },
  ioTimeoutMs: {
    option: "io-timeout",
    type: "ms",
    least: 100,
    most: HOUR_MS,
    default: 10_000,
    help:
      "time that a store, or the disk of --persistent-dir, has to answer before writers continue " +
      `without it, 100 to ${HOUR_MS}`,
  },
  trustReboots: {
    option: "trust-reboots",
    type: "flag",
    default: false,
    help:
      "continue persistent trackers over reboots and power cuts even if nothing proves that " +
      "there were no other writes. Only for machines on which no rescue disk, no other machine " +
      "and no boot without blksnapd writes to the devices",
  },
} as const satisfies SettingTable;

/** Granularity of tracking and saving: the kernel module's parameters; sizes as their log2. */
export const PARAMETERS = {
  trackingBlockMinimumShift: {
    option: "tracking-block-minimum-shift",
    type: "count",
    least: 9,
    most: 31,
    default: 16,
    help: "log2 of the smallest CBT block, 9 to 31",
  },
  trackingBlockMaximumShift: {
    option: "tracking-block-maximum-shift",
    type: "count",
    least: 9,
    most: 31,
    default: 26,
    help: "log2 of the largest CBT block, 9 to 31; wins over the count",
  },
  trackingBlockMaximumCount: {
    option: "tracking-block-maximum-count",
    type: "count",
    least: 1,
    most: 2 ** 30,
    default: 2_097_152,
    help: "largest number of blocks wanted in a CBT map",
  },
  chunkMinimumShift: {
    option: "chunk-minimum-shift",
    type: "count",
    least: 9,
    most: 26,
    default: 18,
    help: "log2 of the smallest chunk, 9 to 26",
  },
  chunkMaximumShift: {
    option: "chunk-maximum-shift",
    type: "count",
    least: 9,
    most: 26,
    default: 26,
    help: "log2 of the largest chunk, 9 to 26; wins over the count",
  },
  chunkMaximumCountShift: {
    option: "chunk-maximum-count-shift",
    type: "count",
    least: 0,
    most: 64,
    default: 40,
    help: "log2 of the largest number of chunks wanted per device",
  },
} as const satisfies SettingTable;

export function defaultsOf<Table extends SettingTable>(table: Table): SettingDefaults<Table> {
  const entries = Object.entries(table).filter(([, setting]) => setting.default !== undefined);
  const values = entries.map(([name, setting]) => [name, setting.default]);
  return Object.fromEntries(values) as SettingDefaults<Table>;
}
