/** blksnapd --check-config: the report that blksnapctl config check shows. */
import type { ConfigReport } from "@blksnap/api";
import { DAEMON_VERSION } from "@blksnap/driver/version";
import { ExitStatus } from "../exit-status.js";
import { configPathOf, type Values } from "../options.js";
import { withUserConfig } from "../user-paths.js";
import { isError } from "./config-problem.js";
import { deviceConflicts } from "./device-conflicts.js";
import { settingsInForce } from "./in-force.js";

/** The daemon's own exit status if it would not start; the status of a failure if it would not attach all devices. */
export function checkStatus({ starts, problems }: ConfigReport): number {
  if (!starts) return ExitStatus.USAGE;
  return problems.some(isError) ? ExitStatus.FAILED : ExitStatus.ENDED;
}

export async function configReport(options: Values): Promise<ConfigReport> {
  const given = withUserConfig(options);
  const { files, config, problems } = settingsInForce(given, {});
  const starts = !problems.some(isError);
  const all = [...problems, ...(await deviceConflicts(config.devices))];
  return {
    version: DAEMON_VERSION,
    path: configPathOf(given),
    files: [...files],
    starts,
    devices: config.devices.map(({ device }) => device),
    problems: all.map(({ path, line, severity, what, hint }) => {
      return { path, line: line ?? null, severity, what, hint };
    }),
  };
}
