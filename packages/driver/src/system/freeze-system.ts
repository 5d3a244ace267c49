/** How the file systems of a machine are found, reached and synced, whoever has them mounted. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import {
  deviceKey,
  type Elsewhere,
  type LoopBacking,
  type LoopFile,
  MULTI_DEVICE_TYPES,
  parseMountinfo,
  type SystemView,
  USERS_VIEW,
} from "@blksnap/linux-block";
import {
  mountsInHelper,
  type ReachedFileSystem,
  ReachedFileSystems,
  syncInHelper,
} from "@blksnap/uring";
import type { LoopTable } from "./loop-table.js";

export interface Reached {
  get(device: string): ReachedFileSystem;
  /** The paths lead nowhere any more. */
  release(): void;
}

/** Each call ends in about its time. */
export interface FreezeSystem extends SystemView {
  /** What the users' mount namespace does not show; `isComplete`: the time was enough for all of it. */
  readElsewhere(timeoutMs: number): Promise<Elsewhere & { readonly isComplete: boolean }>;
  reach(devices: readonly string[], timeoutMs: number): Promise<Reached>;
  /** 0 or a negative errno for each; a path may be that of a block device. */
  sync(paths: readonly string[], timeoutMs: number): Promise<number[]>;
}

/** The file systems of this machine. @param loops what is known of its loop devices */
export function usersSystem(loops: LoopTable): FreezeSystem {
  return {
    ...USERS_VIEW,
    async readElsewhere(timeoutMs) {
      const [found, looped] = await Promise.all([
        mountsInHelper(MULTI_DEVICE_TYPES, timeoutMs),
        loops.read(timeoutMs),
      ]);
      const shown = new Set(USERS_VIEW.readMounts().map(({ device }) => device));
      const mounts = parseMountinfo(found.mounts.map(({ line }) => line).join("\n"));
      return {
        mounts: mounts.filter(({ device }) => !shown.has(device)),
        loopFiles: new Map([...looped].map(([name, { backing }]) => [name, fileOf(backing)])),
        isComplete: found.isComplete,
      };
    },
    reach: (devices, timeoutMs) => ReachedFileSystems.open(devices, timeoutMs),
    sync: (paths, timeoutMs) => syncInHelper(paths, timeoutMs),
  };
}

function fileOf({ device, blockDevice }: LoopBacking): LoopFile {
  return {
    fileSystem: deviceKey(device),
    device: blockDevice === undefined ? undefined : deviceKey(blockDevice),
  };
}

/** The node of a block device; undefined where there is none. */
export function nodeOf(device: string, sysfs: string): string | undefined {
  try {
    const text = readFileSync(join(sysfs, "dev/block", device, "uevent"), "utf8");
    const name = /^DEVNAME=(.+)$/m.exec(text)?.[1];
    return name === undefined ? undefined : `/dev/${name}`;
  } catch {
    return undefined;
  }
}
