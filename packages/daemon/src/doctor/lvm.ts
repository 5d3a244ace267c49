/**
 * Physical volumes of LVM in tracked devices: each is there twice or more, with one uuid, and LVM looks at all block
 * devices, whatever udev says of them.
 *
 * - a front by itself: LVM may use the original in its place, and does at boot, when there is no front yet; its writes
 *   to that are not tracked
 * - a live attach: LVM looks at no logical volume, but at the front and at the clone below one. So it finds the groups of
 *   a guest to which the volume is given. It activates no duplicates, but one alone.
 */
import type { TrackerRecord } from "@blksnap/driver";
import { error, type Finding, ok, warning } from "./finding.js";
import type { HostFiles } from "./host-files.js";

type Tracked = Pick<TrackerRecord, "device" | "identity" | "front" | "live">;

const CHECK = "lvm_filter";
const CONFIGURATIONS = ["/etc/lvm/lvmlocal.conf", "/etc/lvm/lvm.conf"];
/** Rejects fronts, images and clones. */
const HIDDEN = '"r|^/dev/ublkb|", "r|^/dev/mapper/.*-blksnap$|"';
const DEVICES_FILE = "/etc/lvm/devices/system.devices";

/** udev's properties identify physical volumes: nothing is read from a device. */
export function checkLvm(host: HostFiles, tracked: readonly Tracked[]): Finding {
  const fronts = tracked.filter(
    (one) =>
      one.live === undefined &&
      isPhysicalVolume(host, one) &&
      !originalNames(host, one).every(isRejected(host)),
  );
  const [first] = fronts;
  if (first !== undefined) return besideItsFront(host, fronts, first);
  const volumes = tracked.filter(
    ({ live, front }) =>
      live !== undefined &&
      hasPhysicalVolume(host, live.number) &&
      ![`/dev/ublkb${front}`, `/dev/mapper/${live.name}-blksnap`].every(isRejected(host)),
  );
  if (volumes.length > 0) return belowVolumes(volumes);
  return ok(CHECK, "LVM finds no physical volume of a tracked device twice");
}

function besideItsFront(host: HostFiles, open: readonly Tracked[], first: Tracked): Finding {
  const names = namesOf(open);
  const what = `LVM may use ${names} instead of the front: both show the same physical volume`;
  const why = "writes that bypass the front are not tracked, and make images wrong";
  const [kernelName = first.device] = originalNames(host, first).toReversed();
  const hint =
    `Add "r|^${first.device}$|" and "r|^${kernelName}$|" to global_filter in /etc/lvm/lvm.conf, ` +
    "and names that stay the same after a reboot (/dev/disk/by-id/...)";
  return error(CHECK, what, why, hint);
}

function belowVolumes(volumes: readonly Tracked[]): Finding {
  const names = namesOf(volumes);
  const what = `LVM finds the physical volume in ${names} by the front and the clone of a live attach`;
  const why =
    "it warns of duplicates; where it finds only one, it activates the group, even a guest's";
  const hint = `Add ${HIDDEN} to global_filter in /etc/lvm/lvm.conf`;
  return warning(CHECK, what, why, hint);
}

function namesOf(tracked: readonly Tracked[]): string {
  return tracked.map(({ device }) => device).join(", ");
}

function isPhysicalVolume(host: HostFiles, { identity, front }: Tracked): boolean {
  const disk = `/sys/class/block/ublkb${front}`;
  const parts = host.names(disk).filter((name) => name.startsWith(`ublkb${front}p`));
  const numbers = [
    identity.replace("block:", ""),
    ...[disk, ...parts.map((name) => `${disk}/${name}`)].map(
      (folder) => host.text(`${folder}/dev`)?.trim() ?? "",
    ),
  ];
  return numbers.some((number) => hasPhysicalVolume(host, number));
}

function hasPhysicalVolume(host: HostFiles, number: string): boolean {
  return /^E:ID_FS_TYPE=LVM2_member$/m.test(host.text(`/run/udev/data/b${number}`) ?? "");
}

/** Names by which LVM may know the original. */
function originalNames(host: HostFiles, { device, identity }: Tracked): string[] {
  const number = identity.replace("block:", "");
  const uevent = host.text(`/sys/dev/block/${number}/uevent`) ?? "";
  const name = /^DEVNAME=(.+)$/m.exec(uevent)?.[1];
  return [...new Set([device, ...(name === undefined ? [] : [`/dev/${name}`])])];
}

function isRejected(host: HostFiles): (path: string) => boolean {
  const devices = usesDevicesFile(host) ? host.text(DEVICES_FILE) : undefined;
  const filters = CONFIGURATIONS.flatMap((path) => filtersIn(host.text(path) ?? ""));
  return (path) => {
    const isListed =
      devices?.includes(`DEVNAME=${path}\n`) || devices?.includes(`DEVNAME=${path} `);
    if (devices !== undefined && !isListed) return true;
    return filters.some((patterns) => isRejectedBy(patterns, path));
  };
}

/** A comment in lvm.conf has the default of the distribution. */
function usesDevicesFile(host: HostFiles): boolean {
  const texts = CONFIGURATIONS.map((path) => host.text(path) ?? "");
  const found = (start: string) =>
    texts.map((text) => new RegExp(`^${start}use_devicesfile\\s*=\\s*(\\d)`, "m").exec(text)?.[1]);
  const value = [...found("\\s*"), ...found("\\s*#\\s*")].find((one) => one !== undefined);
  return value !== "0";
}

/** The patterns of each filter, in order. */
function filtersIn(text: string): string[][] {
  const active = text.replace(/^\s*#.*$/gm, "");
  return [
    ...active.matchAll(/^\s*(?:devices\/)?(?:global_)?filter\s*=\s*(\[[^\]]*\]|"[^"]*")/gm),
  ].map(([, list = ""]) => [...list.matchAll(/"([^"]*)"/g)].map(([, pattern = ""]) => pattern));
}

/** The first matching pattern decides: "a|REGEX|" accepts, "r|REGEX|" rejects, with any delimiter. */
function isRejectedBy(patterns: readonly string[], path: string): boolean {
  const fits = patterns.find((pattern) => {
    try {
      return new RegExp(pattern.slice(2, -1)).test(path);
    } catch {
      return false;
    }
  });
  return fits?.startsWith("r") ?? false;
}
