/**
 * What the next daemon of this boot continues with: the configuration of the last daemon that served, and those of
 * its devices that were still pending. A file in the state directory:
 *
 * ```
 *   a daemon serves ──▶ written ──▶ a device is attached or given up ──▶ written again
 *                          └──────▶ an end that leaves nothing ────────▶ removed
 * ```
 *
 * So it exists exactly while devices may wait for a server: users of fronts need not wait for a corrected file.
 */
import { mkdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { SETTINGS } from "@blksnap/api";
import type { Values } from "../options.js";
import { replaceFile } from "../replace-file.js";
import { settingProblem } from "../setting-values.js";
import { type Config, type ConfiguredDevice, type ConfiguredValue, DAEMON_KEYS } from "./config.js";

/** One of the driver's state files; a supervisor knows its name without loading the driver. */
export const SERVED_FILE_NAME = "served.json";
const BOOT_ID_FILE = "/proc/sys/kernel/random/boot_id";

/** A device to attach. */
export interface WaitedFor {
  readonly configured: ConfiguredDevice;
  /** From bootClockMs(). */
  readonly untilMs: number;
  /** How many daemons have waited for it and died. */
  readonly earlierDaemons: number;
  /** Attached when devices can be attached again; no boot waits for it. */
  readonly isHeld?: boolean;
}

export interface Served {
  /** The daemon that wrote it. */
  readonly pid: number;
  readonly config: Config;
  /** Undefined: the next start is a manual one, and attaches all configured devices. */
  readonly waited: readonly WaitedFor[] | undefined;
}

/** A clock that all processes share and that cannot be set. */
export function bootClockMs(): number {
  return Number(process.hrtime.bigint() / 1_000_000n);
}

function bootId(): string {
  return readFileSync(BOOT_ID_FILE, "utf8").trim();
}

/** Settings that this version knows, with valid values. */
function usable(values: readonly (readonly [string, ConfiguredValue])[]): Config["values"] {
  return new Map(
    values.filter(([key, { value }]) => {
      const setting = DAEMON_KEYS.get(key);
      return setting !== undefined && settingProblem(setting, value) === undefined;
    }),
  );
}

/** Tolerates files of another version: a daemon that fails over one would be restarted in a loop. */
function hasShape(devices: unknown, waited: unknown): boolean {
  const isDevice = (one: unknown): boolean =>
    typeof (one as Partial<ConfiguredDevice> | null)?.device === "string";
  const isWaited = (one: unknown): boolean => {
    const { configured, untilMs, earlierDaemons } = (one ?? {}) as Partial<WaitedFor>;
    return isDevice(configured) && Number.isFinite(untilMs) && Number.isFinite(earlierDaemons);
  };
  const isList = (list: unknown, is: (one: unknown) => boolean): boolean =>
    Array.isArray(list) && list.every(is);
  return isList(devices, isDevice) && (waited === null || isList(waited, isWaited));
}

export class ServedFile {
  readonly path: string;

  constructor(stateDirectory: string) {
    this.path = join(stateDirectory, SERVED_FILE_NAME);
  }

  /** @param given the command line, which names the state directory */
  static of(given: Values): ServedFile {
    const { option, default: usual } = SETTINGS.stateDirectory;
    const path = given[option];
    return new ServedFile(typeof path === "string" && path !== "" ? path : usual);
  }

  /** Undefined if no daemon has served since boot, the last one has left nothing, or the file is damaged. */
  read(): Served | undefined {
    try {
      const { boot, pid, values, devices, waited } = JSON.parse(
        readFileSync(this.path, "utf8"),
      ) as {
        boot: string;
        pid: number;
        values: [string, ConfiguredValue][];
        devices: ConfiguredDevice[];
        waited: WaitedFor[] | null;
      };
      if (boot !== bootId() || !hasShape(devices, waited)) return undefined;
      return { pid, config: { values: usable(values), devices }, waited: waited ?? undefined };
    } catch {
      return undefined;
    }
  }

  /** @throws the error of write(2) */
  write({ pid, config, waited }: Served): void {
    const text = JSON.stringify({
      boot: bootId(),
      pid,
      values: [...config.values],
      devices: config.devices,
      waited: waited ?? null,
    });
    mkdirSync(join(this.path, ".."), { recursive: true, mode: 0o700 });
    replaceFile(this.path, text);
  }

  /** Removes it, unless another daemon has written it meanwhile. */
  removeOf(pid: number): void {
    if (this.read()?.pid === pid) rmSync(this.path, { force: true });
  }
}
