/** Links by which users find devices whose own names are numbers that come and go. Nothing depends on them. */
import { existsSync, mkdirSync, readlinkSync, rmdirSync, symlinkSync, unlinkSync } from "node:fs";
import { basename } from "node:path";
import { entriesOf } from "../sysfs-text.js";

export class DeviceLinks {
  readonly #directory: string;

  /** @param directory in /dev, made for the first link and removed with the last one */
  constructor(directory: string) {
    this.#directory = directory;
  }

  /**
   * Makes a device known by a name; one that is taken gets the device's number added.
   * @param name or path, of which the last part is taken
   * @returns the link's path; undefined where links cannot be made
   */
  add(name: string, devicePath: string): string | undefined {
    try {
      mkdirSync(this.#directory, { recursive: true });
    } catch {
      return undefined;
    }
    const target = targetOf(devicePath);
    for (const path of this.#candidates(name, devicePath)) {
      try {
        // One that a killed program has left is ours if it leads here, and stale if it leads nowhere.
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

  /** Whether add() has linked the device under this name. */
  has(name: string, devicePath: string): boolean {
    return this.#candidates(name, devicePath).some((path) => leadsTo(path, devicePath));
  }

  /** Removes a link, if it still leads to the device. */
  remove(path: string | undefined, devicePath: string): void {
    if (path === undefined) return;
    try {
      if (leadsTo(path, devicePath)) unlinkSync(path);
      rmdirSync(this.#directory);
    } catch {
      // Removed by another program, or other links are still there.
    }
  }

  /** Removes the links that lead nowhere: a killed program's. */
  removeStale(): void {
    try {
      for (const name of entriesOf(this.#directory)) {
        const path = `${this.#directory}/${name}`;
        if (!existsSync(path)) unlinkSync(path);
      }
      rmdirSync(this.#directory);
    } catch {
      // There are none, or others that lead somewhere.
    }
  }

  #candidates(name: string, devicePath: string): string[] {
    const path = `${this.#directory}/${linkName(name)}`;
    return [path, `${path}-${basename(devicePath)}`];
  }
}

/** Without characters that need quoting. */
function linkName(device: string): string {
  return basename(device).replace(/[^A-Za-z0-9._-]/g, "_");
}

function targetOf(devicePath: string): string {
  return `../${basename(devicePath)}`;
}

function leadsTo(path: string, devicePath: string): boolean {
  try {
    return readlinkSync(path) === targetOf(devicePath);
  } catch {
    return false;
  }
}
