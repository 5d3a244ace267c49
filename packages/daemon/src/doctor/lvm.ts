/**
 * LVM on fronts: the original has the same physical volume, with the same uuid. LVM uses the one that it prefers, and
 * at boot only the original exists; its writes to that are not tracked.
 */
import type { TrackerRecord } from "@blksnap/driver";
import { error, type Finding, ok } from "./finding.js";
import type { HostFiles } from "./host-files.js";

type Tracked = Pick<TrackerRecord, "device" | "identity" | "front">;

const CHECK = "lvm_filter";
const CONFIGURATIONS = ["/etc/lvm/lvmlocal.conf", "/etc/lvm/lvm.conf"];
const DEVICES_FILE = "/etc/lvm/devices/system.devices";

/** udev's properties identify physical volumes: nothing is read from a device. */
export function checkLvm(host: HostFiles, tracked: readonly Tracked[]): Finding {
  const open = tracked.filter(
    (one) => isPhysicalVolume(host, one) && !originalNames(host, one).every(isRejected(host)),
  );
  const [first] = open;
  if (first === undefined) return ok(CHECK, "LVM cannot take the original of a front that it uses");
  const names = open.map(({ device }) => device).join(", ");
  const what = `LVM may use ${names} instead of the front: both show the same physical volume`;
  const why = "writes that bypass the front are not tracked, and make images wrong";
  const [kernelName = first.device] = originalNames(host, first).toReversed();
  const hint =
    `Add "r|^${first.device}$|" and "r|^${kernelName}$|" to global_filter in /etc/lvm/lvm.conf, ` +
    "and names that stay the same after a reboot (/dev/disk/by-id/...)";
  return error(CHECK, what, why, hint);
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
  return numbers.some((number) =>
    /^E:ID_FS_TYPE=LVM2_member$/m.test(host.text(`/run/udev/data/b${number}`) ?? ""),
  );
}

/** Names by which LVM may know the original. */
function originalNames(host: HostFiles, { device, identity }: Tracked): string[] {
  const number = identity.replace("block:", "");
  const uevent = host.text(`/sys/dev/block/${number}/uevent`) ?? "";
  const name = /^DEVNAME=(.+)$/m.exec(uevent)?.[1];
  return [...new Set([device, ...(name === undefined ? [] : [`/dev/${name}`])])];
}

function isRejected(host: HostFiles): (path: string) => boolean {
  const devices = host.text(DEVICES_FILE);
  const filters = CONFIGURATIONS.flatMap((path) => filtersIn(host.text(path) ?? ""));
  return (path) => {
    const isListed =
      devices?.includes(`DEVNAME=${path}\n`) || devices?.includes(`DEVNAME=${path} `);
    if (devices !== undefined && !isListed) return true;
    return filters.some((patterns) => isRejectedBy(patterns, path));
  };
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
