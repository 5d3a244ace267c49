/** blksnapd --print-config: all settings, and the source of each. */
import { DAEMON_SETTINGS, type Setting, socketPath } from "@blksnap/api";
import { defaultOf } from "../option-table.js";
import { configPathOf, type Values } from "../options.js";
import { type ConfiguredDevice, DAEMON_KEYS } from "./config.js";
import type { InForce } from "./in-force.js";

interface ShownSetting {
  readonly key: string;
  /** Null if there is none, or it depends on the machine. */
  readonly value: string | number | boolean | null;
  readonly from: string;
}

const DEFAULT = "default";

function shownValue(setting: Setting, values: Values): ShownSetting["value"] {
  if (setting === DAEMON_SETTINGS.socket) return values.socket ?? socketPath();
  const value = values[setting.option];
  if (value === undefined) return setting.default ?? (setting.type === "flag" ? false : null);
  const isNumber = setting.type === "count" || setting.type === "bytes" || setting.type === "ms";
  return isNumber ? Number(value) : value;
}

function shownSettings({ values, origins }: InForce): ShownSetting[] {
  return [...DAEMON_KEYS.values()].map((setting) => ({
    key: setting.option,
    value: shownValue(setting, values),
    from: origins.get(setting.option) ?? DEFAULT,
  }));
}

/** Output of --json. */
export interface ConfigDocument {
  readonly config: string;
  /** The files that were read, in the order in which they count. */
  readonly files: readonly string[];
  readonly daemon: readonly ShownSetting[];
  readonly device: readonly {
    readonly device: string;
    readonly persistent: boolean;
    readonly wait_seconds: number;
    readonly from: string;
  }[];
}

export function configDocument(given: Values, inForce: InForce): ConfigDocument {
  return {
    config: configPathOf(given),
    files: inForce.files,
    daemon: shownSettings(inForce),
    device: inForce.config.devices.map(({ device, persistent, waitSeconds, from }) => ({
      device,
      persistent,
      wait_seconds: waitSeconds,
      from,
    })),
  };
}

/** The text is itself a configuration file. */
export function configText(given: Values, inForce: InForce): string {
  const { config, files } = configDocument(given, inForce);
  const read = files.length === 0 ? `${config} is not there` : `read: ${files.join(", ")}`;
  const settings = shownSettings(inForce).map(({ key, value, from }) => {
    const line = value === null ? `# ${key}: ${unsaid(key)}` : `${key} = ${quoted(value)}`;
    return `${line.padEnd(COLUMN)} # ${from}`;
  });
  const devices = inForce.config.devices.flatMap(deviceLines);
  return `${[`# ${read}`, "[daemon]", ...settings, ...devices].join("\n")}\n`;
}

const COLUMN = 44;

/** Shown for a missing value. */
function unsaid(key: string): string {
  const setting = DAEMON_KEYS.get(key);
  return setting === undefined ? "" : defaultOf(setting);
}

function deviceLines({ device, persistent, waitSeconds, from }: ConfiguredDevice): string[] {
  return [
    "",
    `${"[[device]]".padEnd(COLUMN)} # ${from}`,
    `device = ${quoted(device)}`,
    `persistent = ${persistent}`,
    `wait-seconds = ${waitSeconds}`,
  ];
}

/** In TOML, whose strings have JSON's escapes. */
function quoted(value: string | number | boolean): string {
  return typeof value === "string" ? JSON.stringify(value) : String(value);
}
