/**
 * Two trackers of the same data would each miss what goes through the other's front, and a take of
 * both could never drain the upper one's writes while the lower one holds them. So a device is
 * refused when it lies on a tracked one, or a tracked one on it, whatever is between:
 *
 * ```
 *   partition ─▶ disk          device-mapper, md ─▶ disk
 *   loop device ─▶ its file ─▶ the disk of its file system       front, image ─▶ original
 * ```
 */
import {
  type DeviceNumber,
  deviceKey,
  type TopologyProbe,
  underlyingDevicesOfPath,
} from "@blksnap/diff-storage";
import { ControlError } from "../control/control-error.js";
import { blockIdentity, identityOf, type Place, placeOf } from "../system/place.js";

/** A device that is tracked already. */
export interface TrackedPath {
  readonly device: string;
  readonly identity: string;
  /** The block devices through which its data is written. */
  readonly numbers: readonly DeviceNumber[];
}

/** Looks at paths as place.ts does, which is the default. */
export interface PlaceProbe extends TopologyProbe {
  readonly lookAt?: (path: string) => Promise<Place>;
}

/** What a path lies on: identities as identityOf() gives them, each with the way to it. */
type Stack = Map<string, readonly string[]>;

/** @throws ControlError DEVICE_OVERLAPS, with the chain of what lies on what */
export async function assertNoOverlap(
  path: string,
  tracked: readonly TrackedPath[],
  probe: PlaceProbe = {},
): Promise<void> {
  const wanted = await identityOf(path);
  const stack = await stackOf(path, probe);
  for (const { device, identity, numbers } of tracked) {
    const identities = [identity, ...numbers.map((number) => blockIdentity(deviceKey(number)))];
    const down = identities.map((one) => stack.get(one)).find((chain) => chain !== undefined);
    if (down !== undefined) {
      throw overlap(`${path} lies on ${device}, which is tracked`, down);
    }
    const up = (await stackOf(device, probe)).get(wanted);
    if (up !== undefined) throw overlap(`${device}, which is tracked, lies on ${path}`, up);
  }
}

function overlap(what: string, chain: readonly string[]): ControlError {
  return new ControlError("DEVICE_OVERLAPS", `${what}: ${chain.join(" → ")}`);
}

async function stackOf(path: string, probe: PlaceProbe): Promise<Stack> {
  const stack: Stack = new Map();
  async function lookAt(layer: string): Promise<Place> {
    const there = await (probe.lookAt ?? placeOf)(layer);
    const way = layer === path ? [path] : [path, layer];
    if (there.blockDevice === undefined) stack.set(there.identity, way);
    return there;
  }
  try {
    for (const { device, chain } of await underlyingDevicesOfPath(path, { ...probe, lookAt })) {
      stack.set(blockIdentity(deviceKey(device)), chain);
    }
  } catch {
    // A layer that nobody can look through is no reason to refuse: the kernel still keeps two
    // exclusive users of one block device apart.
  }
  return stack;
}
