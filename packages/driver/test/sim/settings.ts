import { dirname } from "node:path";
import type { MachineOptions, SimMachine } from "@blksnap/sim-kernel";
import type { DriverOptions } from "../../dist/index.js";

export const DISK_BYTES = 2 ** 20;
export const DISK_SECTORS = DISK_BYTES / 512;
/** Most sectors of one request of a user: what one request of a front takes. */
export const IO_SECTORS_MAX = 64;
/** So long that copies are met on their way, and short of every bound. */
export const SLOW_STORE_US: readonly [number, number] = [500, 4000];
/** Stores: a folder of the disk that journals are on, and a disk. */
export const KEPT_STORE = "/var/tmp";
export const BLOCK_STORE = "/dev/sds";
/** That disk under a name that it keeps, as persistent snapshots need it. */
export const LINKED_STORE = "/dev/disk/by-id/sds";
export const STATE_DIRECTORY = "/run/blksnap/state";

/** UBLK_F_* of Linux 7.0, which has zero copy. */
const UBLK_FEATURES = 0xffff;

/** Half of the seeds have a kernel with zero copy, which cannot be had for some requests. */
export function kernelOf(seed: number): MachineOptions {
  return seed % 2 === 0 ? { seed } : { seed, ublkFeatures: UBLK_FEATURES, pagesRefusedOneIn: 12 };
}

/** Of persistent snapshots: one seed in four has them on the disk. */
export function keptStoreOf(seed: number): string {
  return seed % 4 === 1 ? LINKED_STORE : KEPT_STORE;
}

/** As udev does it at each boot. */
export function linkStore({ files }: SimMachine): void {
  if (files.exists(LINKED_STORE) || !files.exists(BLOCK_STORE)) return;
  files.mkdir(dirname(LINKED_STORE), true);
  files.symlink(BLOCK_STORE, LINKED_STORE);
}

export function isOnDisk(store: string | undefined): boolean {
  return store === BLOCK_STORE || store === LINKED_STORE;
}

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
    zeroCopy: "auto",
    // A few writes' time, so that takes meet it.
    freezeTimeoutMs: 8,
    portionBytes: 2 ** 18,
    parameters: { chunkMinimumShift: 15, trackingBlockMinimumShift: 14 },
  };
}
