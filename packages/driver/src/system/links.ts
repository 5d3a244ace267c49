import {
  existsSync,
  mkdirSync,
  readdirSync,
  readlinkSync,
  rmdirSync,
  symlinkSync,
  unlinkSync,
} from "node:fs";
import { basename } from "node:path";

/** Stable names of fronts and images: /dev/blksnap/NAME and /dev/blksnap/NAME-image. */
const LINKS_DIRECTORY = "/dev/blksnap";

/** The name of a device's links: that of its node or file, with unusual characters replaced. */
export function linkName(device: string): string {
  return basename(device).replace(/[^A-Za-z0-9._-]/g, "_");
}

/**
 * Links `/dev/blksnap/<name>` to a device; a name that is taken gets the device's number added.
 * Answers the link's path, or undefined where links cannot be made: nobody depends on them.
 */
export function addLink(name: string, devicePath: string): string | undefined {
  try {
    mkdirSync(LINKS_DIRECTORY, { recursive: true });
  } catch {
    return undefined;
  }
  const target = `../${basename(devicePath)}`;
  for (const candidate of [name, `${name}-${basename(devicePath)}`]) {
    const path = `${LINKS_DIRECTORY}/${candidate}`;
    try {
      // One that a killed daemon has left is ours if it leads here, and stale if it leads nowhere.
      if (readlinkSync(path) === target) return path;
      if (!existsSync(path)) unlinkSync(path);
    } catch {
      // There is none.
    }
    try {
      symlinkSync(target, path);
      return path;
    } catch {
      // Taken, by a device of the same base name in another directory.
    }
  }
  return undefined;
}

/** Whether addLink() has linked the device under this name. */
export function hasLink(name: string, devicePath: string): boolean {
  const target = `../${basename(devicePath)}`;
  return [name, `${name}-${basename(devicePath)}`].some((candidate) => {
    try {
      return readlinkSync(`${LINKS_DIRECTORY}/${candidate}`) === target;
    } catch {
      return false;
    }
  });
}

/** Removes the links that lead nowhere: a killed daemon's. */
export function removeStaleLinks(): void {
  try {
    for (const name of readdirSync(LINKS_DIRECTORY)) {
      const path = `${LINKS_DIRECTORY}/${name}`;
      if (!existsSync(path)) unlinkSync(path);
    }
    rmdirSync(LINKS_DIRECTORY);
  } catch {
    // There are none, or others that lead somewhere.
  }
}

/** Removes a link, if it still leads to the device. */
export function removeLink(path: string | undefined, devicePath: string): void {
  if (path === undefined) return;
  try {
    if (readlinkSync(path) === `../${basename(devicePath)}`) unlinkSync(path);
    rmdirSync(LINKS_DIRECTORY);
  } catch {
    // Removed by somebody else, or other links are still there.
  }
}
