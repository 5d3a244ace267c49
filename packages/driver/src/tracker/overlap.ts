/**
 * Two trackers of the same data would each miss writes through the other's front, and a take of both could never drain
 * the upper one's writes while the lower one holds them. So a device is refused when it lies on a tracked one, or a
 * tracked one on it, or both on the same bytes of a third one, through any layers:
 *
 * ```
 *   partition ─▶ disk          device-mapper, md ─▶ disk
 *   loop device ─▶ its file ─▶ the disk of its file system       front, image ─▶ original
 * ```
 *
 * A tracked device is identified by its number, or its file; the name at attach may lead elsewhere by now.
 */

import { ControlError } from "@blksnap/api";
import {
  blockIdentity,
  type DeviceOrFile,
  deviceKey,
  knownStackOf,
  overlapOf,
  presentName,
  type TopologyProbe,
} from "@blksnap/linux-block";
import { identityOf } from "../system/path-target.js";

/** A device that is tracked already. */
export interface TrackedPath {
  /** The name at attach. */
  readonly device: string;
  readonly identity: string;
  /** The original, and other devices through which its data is written. */
  readonly places: readonly [DeviceOrFile, ...DeviceOrFile[]];
}

/** @throws ControlError DEVICE_OVERLAPS, with the chain of what lies on what */
export async function assertNoOverlap(
  path: string,
  tracked: readonly TrackedPath[],
  probe: TopologyProbe = {},
): Promise<void> {
  const wanted = await identityOf(path, probe.lookUp);
  // An unreadable layer is no reason to refuse: the kernel still keeps two exclusive users of a block device apart.
  const stack = await knownStackOf(path, probe);
  for (const { device, identity, places } of tracked) {
    const said = async () => `${await bothNames(device, identity, probe)}, which is tracked`;
    const identities = [identity, ...places.map(identityOfTarget)];
    const down = identities.map((one) => stack.get(one)).find((node) => node !== undefined);
    if (down !== undefined) throw overlaps(`${path} lies on ${await said()}`, down.chain);
    // The same through its front.
    const [original] = places;
    const its = await knownStackOf(original, probe);
    const up = its.get(wanted);
    if (up !== undefined) throw overlaps(`${await said()}, lies on ${path}`, up.chain);
    const overlap = overlapOf(stack, its);
    if (overlap === undefined) continue;
    const { one, other } = overlap;
    const what = `${path} and ${await said()}, lie on the same bytes of ${one.name}`;
    throw overlaps(what, [...one.chain, ...other.chain.toReversed().slice(1)]);
  }
}

function overlaps(what: string, chain: readonly string[]): ControlError {
  return new ControlError("DEVICE_OVERLAPS", `${what}: ${chain.join(" → ")}`);
}

function identityOfTarget(place: DeviceOrFile): string {
  return "identity" in place ? place.identity : blockIdentity(deviceKey(place));
}

/** The name at attach, and the device's present name if that differs. */
export async function bothNames(
  device: string,
  identity: string,
  probe: TopologyProbe = {},
): Promise<string> {
  const found = await identityOf(device, probe.lookUp).catch(() => undefined);
  if (found === identity) return device;
  const now = presentName(identity, probe.sysfsRoot);
  if (now !== undefined) return now === device ? device : `${device} (now ${now})`;
  return found === undefined ? device : `${device} (which is something else now)`;
}
