/**
 * What a driver needs of the machine, each part replaceable:
 *
 * ```
 *   Driver.start(options, ports)
 *      │ openUblk, openRing     control commands, and system calls on the main thread's ring
 *      │ storeSystem            what stores of old data need of their files
 *      │ blockDevices           what paths, loop devices and superblocks lead to
 *      │ freezing               file systems above the fronts of a take
 *      └ startReactor           a thread for devices
 * ```
 *
 * Time, random numbers and files are the platform's own: whoever simulates those replaces them for the
 * whole process, and so cannot miss one that a library asks for.
 */
import type { FileSystemFreeze } from "@blksnap/api";
import { type StartReactor, startReactorThread } from "@blksnap/data-plane";
import type { StoreSystem } from "@blksnap/diff-storage";
import type { TopologyProbe } from "@blksnap/linux-block";
import { UblkControl } from "@blksnap/ublk";
import { PromiseRing } from "@blksnap/uring";
import { FreezeGroup, type FreezeOptions } from "./system/freeze.js";
import { usersSystem } from "./system/freeze-system.js";
import { LoopTable } from "./system/loop-table.js";
import { pathTarget } from "./system/path-target.js";
import { ringStoreSystem } from "./system/store-system.js";
import { readDeviceInHelper } from "./system/superblock-reader.js";

/** What is behind paths and devices; each answer comes in bounded time. */
export type BlockDeviceFacts = Required<
  Pick<TopologyProbe, "lookAt" | "loopBacking" | "readDevice">
>;

/** The file systems of one take; see FreezeGroup. */
export interface Freeze {
  readonly report: readonly FileSystemFreeze[];
  freeze(devices: Iterable<string>, timeoutMs: number): Promise<void>;
  assertHeld(): void;
  thaw(): Promise<void>;
}

/** Begins a take's freeze: nothing is frozen yet. */
export type Freezing = (options: Omit<FreezeOptions, "system">) => Freeze;

export interface DriverPorts {
  readonly openUblk: () => Promise<UblkControl>;
  readonly openRing: () => PromiseRing;
  readonly storeSystem: (ring: PromiseRing) => StoreSystem;
  readonly blockDevices: BlockDeviceFacts;
  readonly freezing: Freezing;
  readonly startReactor: StartReactor;
}

/** This machine's. What was learned of its loop devices is kept with them. */
export function machinePorts(): DriverPorts {
  const loops = new LoopTable();
  const system = usersSystem(loops);
  return {
    openUblk: () => UblkControl.open(),
    openRing: () => new PromiseRing(),
    storeSystem: ringStoreSystem,
    blockDevices: {
      lookAt: pathTarget,
      loopBacking: (node, device) => loops.backingOf(node, device),
      readDevice: readDeviceInHelper,
    },
    startReactor: startReactorThread,
    freezing: (options) => new FreezeGroup({ ...options, system }),
  };
}
