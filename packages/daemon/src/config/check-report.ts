/** blksnapd --check-config: what blksnapctl config check shows. */
import type { ConfigReport } from "@blksnap/api";
import { DAEMON_VERSION } from "@blksnap/driver/version";
import { configPathOf, type Values } from "../options.js";
import { deviceConflicts } from "./device-conflicts.js";
import { settingsInForce } from "./in-force.js";

export async function configReport(given: Values): Promise<ConfigReport> {
  const { files, config, problems } = settingsInForce(given, {});
  const all = [...problems, ...(await deviceConflicts(config.devices))];
  return {
    version: DAEMON_VERSION,
    path: configPathOf(given),
    files: [...files],
    devices: config.devices.map(({ device }) => device),
    problems: all.map(({ path, line, severity, what, hint }) => {
      return { path, line: line ?? null, severity, what, hint };
    }),
  };
}
