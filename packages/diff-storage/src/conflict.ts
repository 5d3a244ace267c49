import { readFile } from "node:fs/promises";
import {
  blockIdentity,
  type DeviceOrFile,
  deviceKey,
  fieldBytes,
  lookUpPath,
  type Overlap,
  overlapOf,
  type Stack,
  type StackNode,
  type SysfsDevice,
  stackOf,
  sysfsDevicesNamed,
  type TopologyProbe,
} from "@blksnap/linux-block";
import { DiffStorageError } from "./errors.js";
import { toStoreError } from "./open-store.js";
import { kindByWord } from "./store-kinds.js";

/** Devices whose bytes other programs may write, despite any claim on them. */
const SERVED_NAME = /^(loop|nbd|ublkb)\d+$/;

/**
 * Refuses a store whose bytes are those of a tracked device: saving old data would write to the device, which would
 * save old data, and so on.
 *
 * Three ways to conflict:
 * 1. a device is beneath the store;
 * 2. the store is beneath a device, or a device shows it: a disk, the file of a loop device;
 * 3. both lie on the same bytes of a third one: two loop devices over one file, a disk and its partition.
 *
 * Two partitions of one disk, two volumes of one group, or two files of one file system do not conflict.
 *
 * Rejects with STORE_ON_MEMBER naming the layers, STACK_UNKNOWN (LinuxBlockError), or the error of looking up the path,
 * such as STORE_NOT_FOUND.
 */
export async function assertNoConflict(
  storePath: string,
  devices: readonly DeviceOrFile[],
  probe: TopologyProbe = {},
): Promise<void> {
  if (kindByWord(storePath) !== undefined || devices.length === 0) return;
  await assertThere(storePath, probe);
  const store = await stackOf(storePath, probe);
  for (const device of devices) {
    const stack = await stackOf(device, probe);
    const overlap = overlapOf(store, stack);
    if (overlap !== undefined) throw conflict(storePath, store, stack, overlap);
  }
}

/** A device or a swap area that shares bytes. */
export interface OtherUse {
  /** Such as "/dev/loop0", "swap". */
  readonly name: string;
  /** The layers to the requested path; empty if they are the same. */
  readonly chain: readonly string[];
  /** Set for a device. */
  readonly device: SysfsDevice | undefined;
}

/**
 * Whatever may write to the bytes of a device or file without claiming it: loop devices, nbd and ublk servers of this
 * host, swap. Unreadable layers are left out.
 */
export async function otherUses(stack: Stack, probe: TopologyProbe = {}): Promise<OtherUse[]> {
  // What lies beneath a file system is written in any case.
  const own: Stack = new Map(
    [...stack].flatMap(([identity, node]): [string, StackNode][] => {
      const shares = node.shares.filter(({ kind }) => kind === "all" || kind === "part");
      return shares.length === 0 ? [] : [[identity, { ...node, shares }]];
    }),
  );
  // Concurrently: devices that do not answer cost the time limit of one of them.
  const found = await Promise.all(
    servedDevices(probe).map(async (device): Promise<OtherUse | undefined> => {
      // A device that is used through this one claims this one.
      if (stack.has(blockIdentity(deviceKey(device.device)))) return undefined;
      const other = await stackOf(device.device, probe).catch(() => undefined);
      const overlap = other && overlapOf(own, other);
      return overlap && { name: device.name, chain: overlap.other.chain, device };
    }),
  );
  const uses = found.filter((use) => use !== undefined);
  for (const path of await swapPaths(probe)) {
    const there = await (probe.lookUp ?? lookUpPath)(path).catch(() => undefined);
    if (there === undefined || !own.has(there.identity)) continue;
    uses.push({ name: "swap", chain: [path], device: undefined });
  }
  return uses;
}

/** @throws DiffStorageError STORE_BUSY naming what else may write to the store; see assertNoConflict() */
export async function assertNotInUse(storePath: string, probe: TopologyProbe = {}): Promise<void> {
  if (kindByWord(storePath) !== undefined) return;
  await assertThere(storePath, probe);
  const [use] = await otherUses(await stackOf(storePath, probe), probe);
  if (use === undefined) return;
  const text =
    use.device === undefined
      ? `${storePath} is used as swap; choose another store`
      : `${storePath} is what ${use.name} shows (${use.chain.join(" → ")}); ` +
        "end that device, or choose another store";
  throw new DiffStorageError("STORE_BUSY", text, { path: storePath });
}

function servedDevices({ sysfsRoot = "/sys" }: TopologyProbe): SysfsDevice[] {
  return sysfsDevicesNamed(sysfsRoot, SERVED_NAME).filter(
    ({ kernelName, backingPath }) => !kernelName.startsWith("loop") || backingPath !== undefined,
  );
}

async function swapPaths({ procRoot = "/proc" }: TopologyProbe): Promise<string[]> {
  const text = await readFile(`${procRoot}/swaps`, "latin1").catch(() => "");
  return text
    .split("\n")
    .slice(1)
    .map((line) => line.split(" ")[0] as string)
    .filter((name) => name.startsWith("/"))
    .map((name) => fieldBytes(name).toString());
}

async function assertThere(storePath: string, probe: TopologyProbe): Promise<void> {
  try {
    await (probe.lookUp ?? lookUpPath)(storePath);
  } catch (error) {
    throw toStoreError(error, storePath);
  }
}

function conflict(
  storePath: string,
  store: Stack,
  stack: Stack,
  { one, other }: Overlap,
): DiffStorageError {
  const device = first(stack);
  const [what, chain] =
    one.identity === device.identity
      ? [`the store ${storePath} lies on ${device.name}`, from(storePath, one.chain)]
      : one.identity === first(store).identity
        ? [`the store ${storePath} is what ${device.name} lies on`, other.chain]
        : [
            `the store ${storePath} and ${device.name} lie on the same bytes of ${one.name}`,
            [...from(storePath, one.chain), ...other.chain.toReversed()],
          ];
  const text = `${what}, a device that is tracked (${chain.join(" → ")}); choose a store on another disk`;
  return new DiffStorageError("STORE_ON_MEMBER", text, { path: storePath });
}

function first(stack: Stack): StackNode {
  return stack.values().next().value as StackNode;
}

function from(path: string, chain: readonly string[]): readonly string[] {
  return chain[0] === path ? chain : [path, ...chain];
}
