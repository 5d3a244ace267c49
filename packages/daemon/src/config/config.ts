/** Parses the configuration files: settings of the daemon, devices to attach, mistakes. */
import { nearestName, type Setting } from "@blksnap/api";
import { parse, TomlError, type TomlTable, type TomlValue } from "smol-toml";
import { OPTIONS } from "../option-table.js";
import { settingProblem } from "../setting-values.js";
import { type ConfigProblem, placeFrom, placeOf } from "./config-problem.js";
import type { ConfigText } from "./config-texts.js";
import { keyLines } from "./key-lines.js";

export interface ConfiguredValue {
  readonly value: string | number | boolean;
  /** "/etc/blksnap/blksnap.toml:3" */
  readonly from: string;
}

/** A device that the daemon attaches when it starts. */
export interface ConfiguredDevice {
  readonly device: string;
  readonly persistent: boolean;
  /** How long the start waits for it to appear. */
  readonly waitSeconds: number;
  readonly from: string;
}

export interface Config {
  readonly values: ReadonlyMap<string, ConfiguredValue>;
  readonly devices: readonly ConfiguredDevice[];
}

const TABLES = ["daemon", "device"];

/** Keys of [daemon], by name: options of blksnapd without their dashes. */
export const DAEMON_KEYS: ReadonlyMap<string, Setting> = new Map(
  OPTIONS.filter(({ commandLineOnly }) => commandLineOnly !== true).map((setting) => [
    setting.option,
    setting,
  ]),
);

const WAIT_SECONDS_DEFAULT = 30;
/** Keys of [[device]]. */
export const DEVICE_KEYS: ReadonlyMap<string, Setting> = new Map<string, Setting>([
  [
    "device",
    {
      option: "device",
      type: "path",
      help: "a block device by a name that stays the same, or an image file",
    },
  ],
  [
    "persistent",
    {
      option: "persistent",
      type: "flag",
      default: false,
      help: "keep the change tracking through stops, reboots and power cuts",
    },
  ],
  [
    "wait-seconds",
    {
      option: "wait-seconds",
      type: "count",
      least: 0,
      most: 3600,
      default: WAIT_SECONDS_DEFAULT,
      help: "how long the start waits for the device; then it continues without it and logs that",
    },
  ],
]);

/** Kernel names, which follow the order in which disks are found. */
const KERNEL_NAME =
  /^\/dev\/((sd|vd|xvd|hd)[a-z]+\d*|nvme\d+n\d+(p\d+)?|mmcblk\d+(p\d+)?|(dm-|md|loop|nbd|zram)\d+(p\d+)?)$/;
/** Links in these folders lead to the front while the device is attached. */
const CONTENT_NAME = /^\/dev\/disk\/by-(uuid|label)\//;
const OURS = /^\/dev\/(ublkb\d|blksnap\/)/;
const STABLE_HINT =
  "Name it by /dev/disk/by-id, by-partuuid or by-path, /dev/mapper, or as a logical volume";

/** State of reading one file. */
class Reader {
  readonly #text: ConfigText;
  readonly #lines: ReadonlyMap<string, number>;
  readonly #problems: ConfigProblem[];

  constructor(text: ConfigText, problems: ConfigProblem[]) {
    this.#text = text;
    this.#lines = keyLines(text.text);
    this.#problems = problems;
  }

  place(key: string): { readonly path: string; readonly line: number | undefined } {
    return { path: this.#text.path, line: this.#lines.get(key) };
  }

  blame(key: string, what: string, hint: string, severity: ConfigProblem["severity"] = "error") {
    this.#problems.push({ ...this.place(key), severity, what, hint });
  }

  document(): TomlTable {
    try {
      return parse(this.#text.text);
    } catch (error) {
      if (!(error instanceof TomlError)) throw error;
      const [first = ""] = error.message.split("\n");
      const what = `this is not TOML: ${first.replace(/^Invalid TOML document: /, "")}`;
      const place = { path: this.#text.path, line: error.line };
      this.#problems.push({ ...place, severity: "error", what, hint: "See blksnap.toml(5)" });
      return {};
    }
  }

  /** The valid values of a table. */
  values(table: TomlTable, at: string, known: ReadonlyMap<string, Setting>) {
    const right = new Map<string, ConfiguredValue>();
    for (const [key, value] of Object.entries(table)) {
      const path = `${at}.${key}`;
      const setting = known.get(key);
      if (setting === undefined) {
        this.#blameUnknown(path, key, known);
        continue;
      }
      const problem = settingProblem(setting, value);
      if (problem !== undefined) this.blame(path, `${key}: ${problem}`, "See blksnap.toml(5)");
      else right.set(key, { value: value as string, from: placeOf(this.place(path)) });
    }
    return right;
  }

  #blameUnknown(path: string, key: string, known: ReadonlyMap<string, Setting>): void {
    const isOption = OPTIONS.some(({ option, internal }) => option === key && internal !== true);
    const near = nearestName(key, [...known.keys()]);
    const hint = isOption
      ? "It belongs on blksnapd's command line"
      : near === undefined
        ? "See blksnap.toml(5)"
        : `Did you mean ${near}?`;
    this.blame(path, `there is no key '${shown(key)}' here`, hint);
  }

  blameTable(name: string): void {
    const near = nearestName(name, TABLES);
    const hint = DAEMON_KEYS.has(name)
      ? "Write it below [daemon]"
      : near === undefined
        ? "Use [daemon] and [[device]]"
        : `Did you mean ${near}?`;
    this.blame(name, `there is no '${shown(name)}'`, hint);
  }
}

const SHOWN_MAX = 64;
function shown(text: string): string {
  return text.slice(0, SHOWN_MAX);
}

function isTable(value: TomlValue | undefined): value is TomlTable {
  return typeof value === "object" && !Array.isArray(value) && !(value instanceof Date);
}

/** Settings of later texts replace those of earlier ones; devices of all texts add up. */
export function readConfig(texts: readonly ConfigText[]): {
  readonly config: Config;
  readonly problems: ConfigProblem[];
} {
  const problems: ConfigProblem[] = [];
  const values = new Map<string, ConfiguredValue>();
  const devices: ConfiguredDevice[] = [];
  for (const text of texts) {
    const reader = new Reader(text, problems);
    const { daemon, device, ...others } = reader.document();
    for (const name of Object.keys(others)) reader.blameTable(name);
    if (isTable(daemon)) {
      for (const [key, value] of reader.values(daemon, "daemon", DAEMON_KEYS)) {
        values.set(key, value);
      }
    } else if (daemon !== undefined)
      reader.blame("daemon", "daemon is not a table", "Write [daemon]");
    if (Array.isArray(device) && device.every(isTable)) {
      for (const [index, table] of device.entries()) {
        const read = readDevice(reader, table, `device.${index}`, devices);
        if (read !== undefined) devices.push(read);
      }
    } else if (device !== undefined) {
      reader.blame("device", "device is not a list of tables", "Write [[device]]");
    }
  }
  const sockets = ["socket", "metrics-socket"].map((key) => values.get(key));
  if (sockets[0] !== undefined && sockets[0].value === sockets[1]?.value) {
    const what = `metrics-socket is the same as socket (${sockets[0].from})`;
    const hint = "Name another path: readers of metrics should not have root's power";
    problems.push({ ...placeFrom(sockets[1].from), severity: "error", what, hint });
  }
  return { config: { values, devices }, problems };
}

function readDevice(
  reader: Reader,
  table: TomlTable,
  at: string,
  earlier: readonly ConfiguredDevice[],
): ConfiguredDevice | undefined {
  const values = reader.values(table, at, DEVICE_KEYS);
  const device = values.get("device")?.value;
  if (typeof device !== "string") {
    if (table["device"] === undefined) {
      reader.blame(at, "[[device]] has no device", 'Write device = "/dev/..."');
    }
    return undefined;
  }
  const key = `${at}.device`;
  const same = earlier.find((one) => one.device === device);
  if (same !== undefined) reader.blame(key, `${device} is also named at ${same.from}`, "Keep one");
  if (!device.startsWith("/")) {
    reader.blame(key, `'${shown(device)}' is not an absolute path`, STABLE_HINT);
  } else if (OURS.test(device)) {
    reader.blame(key, `${device} is a front or an image`, "Name the original");
  } else if (KERNEL_NAME.test(device)) {
    const what = `${device} may be another disk after the next boot`;
    reader.blame(key, what, STABLE_HINT, "warning");
  } else if (CONTENT_NAME.test(device)) {
    const what = `${device} leads to the front while the device is attached`;
    reader.blame(key, what, STABLE_HINT, "warning");
  }
  return {
    device,
    persistent: values.get("persistent")?.value === true,
    waitSeconds: Number(values.get("wait-seconds")?.value ?? WAIT_SECONDS_DEFAULT),
    from: placeOf(reader.place(at)),
  };
}
