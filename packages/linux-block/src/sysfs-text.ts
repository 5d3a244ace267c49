/** Reads sysfs synchronously: it answers out of the kernel's memory. */
import { readdirSync, readFileSync } from "node:fs";

/**
 * The text of an attribute; null if it is missing or empty, or its driver refuses to report it.
 * @param folder the kernel resolves it: behind a link, ".." is the parent of what the link leads to
 */
export function attribute(folder: string, name: string): string | null {
  try {
    return readFileSync(`${folder}/${name}`, "utf8").trim() || null;
  } catch {
    return null;
  }
}

/** Like attribute(), with blanks at its ends: for file names. */
export function nameAttribute(folder: string, name: string): string | null {
  try {
    return readFileSync(`${folder}/${name}`, "utf8").replace(/\n$/, "") || null;
  } catch {
    return null;
  }
}

/** Names in a folder; none if there is no such folder. */
export function entriesOf(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

/** An attribute of the queue of a device, "major:minor"; a partition has that of its disk. */
export function queueAttribute(number: string, name: string, sysfs = "/sys"): string | null {
  const folder = `${sysfs}/dev/block/${number}`;
  return attribute(`${folder}/queue`, name) ?? attribute(`${folder}/../queue`, name);
}

/** Whether a device, "major:minor", lies on other devices, as device-mapper nodes do; a partition is like its disk. */
export function isStacked(number: string, sysfs = "/sys"): boolean {
  const folder = `${sysfs}/dev/block/${number}`;
  return [folder, `${folder}/..`].some((of) => entriesOf(`${of}/slaves`).length > 0);
}

/** The kernel's name of its node, without "/dev/". @param number "major:minor" */
export function nodeName(number: string, sysfs: string): string | undefined {
  const uevent = attribute(`${sysfs}/dev/block/${number}`, "uevent");
  return /^DEVNAME=(.+)$/m.exec(uevent ?? "")?.[1];
}
