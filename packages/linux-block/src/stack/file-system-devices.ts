import { type DeviceNumber, deviceKey } from "../device-number.js";
import { entriesOf } from "../sysfs-text.js";
import { type Mount, superOption } from "./mountinfo.js";
import { namesIn, readText } from "./probe.js";
import { deviceNamed, linkedDevices, type SysfsDevice } from "./sysfs-device.js";

const JOURNAL_THREAD = /^jbd2\/(.+)$/;
/** Mount options that name one more device: of XFS, of ext3 and ext4, of reiserfs. */
const DEVICE_OPTIONS = ["logdev", "rtdev", "journal_path", "jdev"];

/** Paths of devices that a mount's options name besides the main one, each with the option's name. */
export function optionDevices(mount: Mount): { readonly option: string; readonly path: string }[] {
  return DEVICE_OPTIONS.flatMap((option) => {
    const path = superOption(mount, option);
    // reiserfs reports "jdev=none".
    return path === undefined || !path.startsWith("/") ? [] : [{ option, path }];
  });
}

/**
 * The device with the journal of a mounted ext3 or ext4, where that is none of its files. The superblock
 * names the one of mkfs; the thread that writes it is called by the one in use: "jbd2/sdb1", or
 * "jbd2/sda1-8" for a journal in inode 8. Where the thread cannot be seen, any journal's device may be it.
 *
 * Facts: fs/ext4/sysfs.c (`journal_task`), fs/jbd2/journal.c (`j_devname`, `kjournald2`).
 */
export async function extJournalDevices(
  sysfsRoot: string,
  procRoot: string,
  { kernelName }: SysfsDevice,
): Promise<DeviceNumber[]> {
  const task = await readText(`${sysfsRoot}/fs/ext4/${kernelName}/journal_task`);
  if (task === undefined || task === "<none>") return [];
  const thread = JOURNAL_THREAD.exec((await readText(`${procRoot}/${task}/comm`)) ?? "");
  const names = thread === null ? await namesIn(`${procRoot}/fs/jbd2`) : [thread[1] as string];
  const devices: DeviceNumber[] = [];
  for (const name of names) {
    // Of a journal in a file there is no device of that name.
    const device = deviceNamed(sysfsRoot, name);
    if (device !== undefined) devices.push(device);
  }
  return devices;
}

/** All devices of the mounted btrfs that `member` belongs to; undefined where sysfs knows none. */
export function btrfsDevices(sysfsRoot: string, member: DeviceNumber): DeviceNumber[] | undefined {
  const base = `${sysfsRoot}/fs/btrfs`;
  for (const uuid of entriesOf(base)) {
    const devices = linkedDevices(`${base}/${uuid}/devices`);
    if (devices.some((device) => deviceKey(device) === deviceKey(member))) return devices;
  }
  return undefined;
}

/** The file with the write-intent bitmap of an md array, where it is none of its devices. */
export async function bitmapFile(
  procRoot: string,
  { kernelName }: SysfsDevice,
): Promise<string | undefined> {
  if (!kernelName.startsWith("md")) return undefined;
  const text = (await readText(`${procRoot}/mdstat`)) ?? "";
  const array = text.split(/^(?=\S)/m).find((part) => part.startsWith(`${kernelName} `));
  return /^\s+bitmap: .*, file: (.+)$/m.exec(array ?? "")?.[1];
}
