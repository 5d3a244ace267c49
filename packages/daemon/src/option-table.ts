/** The options of blksnapd, from the table of settings; source of parsing, help and README. */
import { DAEMON_SETTINGS, PARAMETERS, SETTINGS, type Setting } from "@blksnap/api";

const SOCKETS: readonly Setting[] = [DAEMON_SETTINGS.socket, DAEMON_SETTINGS.metricsSocket];

/** All options, in the order of the help. */
export const OPTIONS: readonly Setting[] = [
  ...SOCKETS,
  ...Object.values(SETTINGS),
  ...Object.values(PARAMETERS),
  ...Object.values(DAEMON_SETTINGS).filter((setting) => !SOCKETS.includes(setting)),
];

const PLACEHOLDERS: Readonly<Record<Exclude<Setting["type"], "flag">, string>> = {
  path: "PATH",
  count: "N",
  bytes: "BYTES",
  ms: "MS",
  address: "ADDRESS",
  level: "LEVEL",
  choice: "KIND",
};

/** "--reactors N" */
export function usageOf({ option, type }: Setting): string {
  return type === "flag" ? `--${option}` : `--${option} ${PLACEHOLDERS[type]}`;
}

/** The default in the form of the help; "" if there is none. */
export function defaultOf(setting: Setting): string {
  if (setting.type === "flag") return "";
  return setting.defaultText ?? String(setting.default ?? "");
}
