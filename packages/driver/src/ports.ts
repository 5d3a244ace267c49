/**
 * What a driver needs from the machine; each part is replaceable:
 *
 * ```
 *   Driver.start(options, ports)
 *      │ openUblk, openRing     control commands, and system calls on the main thread's ring
 *      │ storeSystem            what stores of old data need of their files
 *      │ blockDevices           targets of paths, loop devices and superblocks
 *      │ freezing               file systems above the fronts of a take
 *      └ startReactor           a thread for devices
 * ```
 *
 * Time, random numbers and files are the platform's own: a simulation replaces them for the whole process, and so
 * covers libraries, too.
 */
import type { FileSystemFreeze } from "@blksnap/api";
import { type StartReactor, startReactorThread } from "@blksnap/data-plane";
import type { StoreSystem } from "@blksnap/diff-storage";
import {
  FreezeGroup,
  type FreezeOptions,
  type FreezeReport,
  type HelperCalls,
  LoopTable,
  superblockReader,
  type TopologyProbe,
  usersSystem,
} from "@blksnap/linux-block";
import { UblkControl } from "@blksnap/ublk";
import {
  apartProgram,
  loopsInHelper,
  mountsInHelper,
  PromiseRing,
  ReachedFileSystems,
  readInHelper,
  statInHelper,
  syncInHelper,
} from "@blksnap/uring";
import { pathTarget } from "./system/path-target.js";
import { ringStoreSystem } from "./system/store-system.js";

/** Facts about paths and devices; each answer has a bound in time. */
export type BlockDeviceFacts = Required<
  Pick<TopologyProbe, "lookUp" | "loopBacking" | "readDevice">
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

/** Helper processes make the calls that may never return. */
const HELPER_CALLS: HelperCalls = {
  freezeProgram: apartProgram,
  stat: statInHelper,
  read: readInHelper,
  loops: loopsInHelper,
  mounts: mountsInHelper,
  reach: (devices, timeoutMs) => ReachedFileSystems.open(devices, timeoutMs),
  sync: syncInHelper,
};

/** The ports of this machine. They cache what is learned about its loop devices. */
export function machinePorts(): DriverPorts {
  const loops = new LoopTable(HELPER_CALLS.loops);
  const system = usersSystem(loops, HELPER_CALLS);
  return {
    openUblk: () => UblkControl.open(),
    openRing: () => new PromiseRing(),
    storeSystem: ringStoreSystem,
    blockDevices: {
      lookUp: pathTarget,
      loopBacking: (node, device) => loops.backingOf(node, device),
      readDevice: superblockReader(HELPER_CALLS.read),
    },
    startReactor: startReactorThread,
    freezing: (options) => freezeOf(new FreezeGroup({ ...options, system })),
  };
}

function freezeOf(group: FreezeGroup): Freeze {
  return {
    get report() {
      return group.report.map(toFileSystemFreeze);
    },
    freeze: (devices, timeoutMs) => group.freeze(devices, timeoutMs),
    assertHeld: () => group.assertHeld(),
    thaw: () => group.thaw(),
  };
}

/** The report for users and for records. */
function toFileSystemFreeze({ device, mountPoint, ...rest }: FreezeReport): FileSystemFreeze {
  return { ...rest, device_number: device, mount_point: mountPoint };
}
