/**
 * What a mount of a volume in an image makes, by its names: they say whose each thing is, also to the command that finds
 * it after that one was killed.
 *
 * ```
 *   image ◀─ blksnap-mount-ID-N (snapshot) ─▶ loop device ─▶ memory
 *                     ▲
 *   group blksnap_ID ─┴─ its volumes: blksnap_ID-NAME
 * ```
 */
import { readFileSync } from "node:fs";

/** Of the process that has made it, and when that began. */
const ID = "[0-9]+_[0-9]+";
const OVERLAY = "blksnap-mount-";
const GROUP = "blksnap_";
const NODE = new RegExp(`^(?:${OVERLAY}(${ID})-[0-9]+|${GROUP}(${ID})-.+)$`);
const VOLUME = new RegExp(`^/dev/mapper/${GROUP}(${ID})-.+$`);
/** On tmpfs. */
export const MEMORY_FOLDER = "/run";

export const overlayName = (id: string, index: number): string => `${OVERLAY}${id}-${index}`;
export const groupName = (id: string): string => `${GROUP}${id}`;

/** Whose a node of the device mapper, or a file in memory, is; undefined for what no mount has made. */
export function idOfName(name: string): string | undefined {
  const found = NODE.exec(name);
  return found?.[1] ?? found?.[2];
}

/** Whose the volume is that is mounted from this path. */
export function idOfVolume(source: string): string | undefined {
  return VOLUME.exec(source)?.[1];
}

/** When a process began, in ticks since boot; undefined for one that is not there. */
function startOf(pid: string): string | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, "latin1");
    // Behind its name, which may have anything in it.
    return text.slice(text.lastIndexOf(")") + 2).split(" ")[19];
  } catch {
    return undefined;
  }
}

export function ownId(): string {
  return `${process.pid}_${startOf("self") ?? 0}`;
}

/** Whether the process that makes it is still at it. */
export function isBeingMade(id: string): boolean {
  const [pid = "", began] = id.split("_");
  return startOf(pid) === began;
}
