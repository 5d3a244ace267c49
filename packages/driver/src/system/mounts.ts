import { readFileSync } from "node:fs";

/** One line of mountinfo (proc_pid_mountinfo(5)). */
export interface Mount {
  readonly major: number;
  readonly minor: number;
  readonly mountPoint: string;
  readonly fsType: string;
  /** The device as mount was given it. */
  readonly source: string;
}

/**
 * The mount namespace in which users mount their file systems. The daemon may live in one of its
 * own; /proc/1/root leads from there to the users' one.
 */
const USERS_ROOT = "/proc/1/root";
const USERS_MOUNTINFO = "/proc/1/mountinfo";

/** Undoes the octal escapes (space, tab, newline, backslash) of mountinfo. */
function unescapeOctal(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 8)),
  );
}

/** Reads mountinfo text; lines that are not understood are left out. */
export function parseMountinfo(text: string): Mount[] {
  const mounts: Mount[] = [];
  for (const line of text.split("\n")) {
    const [left, right] = line.split(" - ");
    if (left === undefined || right === undefined) continue;
    const fields = left.split(" ");
    const [fsType, source] = right.split(" ");
    const [major, minor] = (fields[2] ?? "").split(":").map(Number);
    if (fields.length < 6 || major === undefined || minor === undefined) continue;
    mounts.push({
      major,
      minor,
      mountPoint: unescapeOctal(fields[4] ?? ""),
      fsType: fsType ?? "",
      source: unescapeOctal(source ?? ""),
    });
  }
  return mounts;
}

/** All mounts that users see. */
export function readMounts(): Mount[] {
  return parseMountinfo(readFileSync(USERS_MOUNTINFO, "utf8"));
}

/** Where a mount point of the users' namespace is found from this process. */
export function reachableMountPoint(mount: Mount): string {
  return `${USERS_ROOT}${mount.mountPoint}`;
}
