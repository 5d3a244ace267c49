import type { DriverOptions } from "../../dist/index.js";

export const DISK_BYTES = 2 ** 20;
export const DISK_SECTORS = DISK_BYTES / 512;
/** Most sectors of one request of a user: what one request of a front takes. */
export const IO_SECTORS_MAX = 64;
export const STATE_DIRECTORY = "/run/blksnap/state";

const nothing = (): void => undefined;

/** Small devices, so that all of their states are met soon. */
export function driverOptions(log: (line: string) => void): DriverOptions {
  const say = (level: string) => (details: unknown, text?: string) => {
    const { err, ...rest } = (typeof details === "object" ? details : {}) as { err?: Error };
    const said = text ?? String(details);
    log(`${level}: ${said} ${JSON.stringify(rest)}${err === undefined ? "" : ` ${err.message}`}`);
  };
  const logger = {
    trace: nothing,
    debug: nothing,
    info: say("info"),
    warn: say("warn"),
    error: say("error"),
    fatal: say("fatal"),
  };
  return {
    logger: logger as never,
    stateDirectory: STATE_DIRECTORY,
    // Nobody else writes to the disks while they are down.
    trustReboots: true,
    persistentDirectory: "/var/lib/blksnap",
    reactors: 2,
    frontDepth: 8,
    imageDepth: 4,
    maxIoBytes: IO_SECTORS_MAX * 512,
    // A few writes' time, so that takes meet it.
    freezeTimeoutMs: 8,
    portionBytes: 2 ** 18,
    parameters: { chunkMinimumShift: 15, trackingBlockMinimumShift: 14 },
  };
}
