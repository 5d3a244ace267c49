/**
 * Links by which users find devices whose kernel names are changing numbers. Nothing depends on them.
 *
 * ```
 *   NAME            short, with a number if another device has it already FOLDER/…/NAME   unique to the device: leads
 *   to no other one, now or later
 * ```
 */
import { existsSync, mkdirSync, readlinkSync, rmdirSync, symlinkSync, unlinkSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { entriesOf } from "../sysfs-text.js";

export class DeviceLinks {
  readonly #directory: string;

  /** @param directory in /dev, created for the first link and removed with the last one */
  constructor(directory: string) {
    this.#directory = directory;
  }

  /**
   * Links a device under a name; a name that is taken gets the device's number added.
   * @param name or path, of which the last part is used
   * @param place another, unique name in a folder below the directory
   * @returns the short link's path; undefined if it cannot be created
   */
  add(name: string, devicePath: string, place?: string): string | undefined {
    if (place !== undefined) this.#addPlace(place, devicePath);
    try {
      mkdirSync(this.#directory, { recursive: true });
    } catch {
      return undefined;
    }
    const target = targetOf(devicePath);
    for (const path of this.#candidates(name, devicePath)) {
      try {
        // A link that a killed program has left is ours if it leads here, and stale if it leads nowhere.
        if (readlinkSync(path) === target) return path;
        if (!existsSync(path)) unlinkSync(path);
      } catch {
        // It does not exist.
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

  /** Removes a link and its unique one, if they still lead to the device. */
  remove(path: string | undefined, devicePath: string): void {
    const its = [...(path === undefined ? [] : [path]), ...this.#inFolders()];
    for (const link of its) {
      if (leadsTo(link, devicePath)) removeLink(link);
    }
    removeEmpty(this.#directory);
  }

  /** Removes dangling links of killed programs. */
  removeStale(): void {
    for (const link of linksBelow(this.#directory)) {
      if (!existsSync(link)) removeLink(link);
    }
    removeEmpty(this.#directory);
  }

  #addPlace(place: string, devicePath: string): void {
    const path = join(this.#directory, place);
    removeLink(path);
    // It belongs to another device that had this number, and whose daemon was killed.
    const others = this.#inFolders().filter((link) => leadsTo(link, devicePath));
    for (const link of others) removeLink(link);
    if (others.length > 0) removeEmpty(this.#directory);
    try {
      mkdirSync(dirname(path), { recursive: true });
      symlinkSync(devicePath, path);
    } catch {
      // Like the short one.
    }
  }

  #inFolders(): string[] {
    return linksBelow(this.#directory).filter((link) => dirname(link) !== this.#directory);
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
  const target = targetIn(path);
  return target === targetOf(devicePath) || target === devicePath;
}

/** Undefined if it is no link. */
function targetIn(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch {
    return undefined;
  }
}

function linksBelow(folder: string): string[] {
  return entriesOf(folder).flatMap((name) => {
    const path = join(folder, name);
    return targetIn(path) === undefined ? linksBelow(path) : [path];
  });
}

function removeLink(path: string): void {
  try {
    unlinkSync(path);
  } catch {
    // Another program has removed it, or it is no link.
  }
}

/** Removes empty folders, and their parent if it is empty then. */
function removeEmpty(folder: string): void {
  for (const name of entriesOf(folder)) {
    const path = join(folder, name);
    if (targetIn(path) === undefined) removeEmpty(path);
  }
  try {
    rmdirSync(folder);
  } catch {
    // It contains links, or was never created.
  }
}
