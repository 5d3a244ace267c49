/** What sysfs says, as text. Read at once: sysfs answers out of the kernel's memory. */
import { readdirSync, readFileSync } from "node:fs";

/**
 * The text of an attribute; null where it is missing, empty, or its driver refuses to tell it.
 * @param folder the kernel resolves it: behind a link, ".." is the parent of what the link leads to
 */
export function attribute(folder: string, name: string): string | null {
  try {
    return readFileSync(`${folder}/${name}`, "utf8").trim() || null;
  } catch {
    return null;
  }
}

/** As attribute(), but with blanks at its ends: for names of files. */
export function nameAttribute(folder: string, name: string): string | null {
  try {
    return readFileSync(`${folder}/${name}`, "utf8").replace(/\n$/, "") || null;
  } catch {
    return null;
  }
}

/** Names in a folder; none where there is no such folder. */
export function entriesOf(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

/** Of the queue of a device, "major:minor"; a partition has that of its disk. */
export function queueAttribute(number: string, name: string, sysfs = "/sys"): string | null {
  const folder = `${sysfs}/dev/block/${number}`;
  return attribute(`${folder}/queue`, name) ?? attribute(`${folder}/../queue`, name);
}

/** Whether a device, "major:minor", has other devices below it, as those of the device mapper; a partition as its disk. */
export function isStacked(number: string, sysfs = "/sys"): boolean {
  const folder = `${sysfs}/dev/block/${number}`;
  return [folder, `${folder}/..`].some((of) => entriesOf(`${of}/slaves`).length > 0);
}

/** As the kernel calls its node, without "/dev/". @param number "major:minor" */
export function nodeName(number: string, sysfs: string): string | undefined {
  const uevent = attribute(`${sysfs}/dev/block/${number}`, "uevent");
  return /^DEVNAME=(.+)$/m.exec(uevent ?? "")?.[1];
}
