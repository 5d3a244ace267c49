/**
 * Files by which udev rules (packages/daemon/udev/59-blksnap.rules) tell fronts and images: the kernel's device says nothing
 * of the kind, and the first event comes before anybody could tell the daemon's records.
 */
import { existsSync, mkdirSync, readdirSync, rmdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

export type UdevMark = "fronts" | "images";

const KINDS: readonly UdevMark[] = ["fronts", "images"];
export const MARKS_DIRECTORY = "/run/blksnap-udev";

/** Nobody depends on marks: where they cannot be made there are none. */
export class UdevMarks {
  readonly #directory: string;
  readonly #sysfs: string;

  constructor(directory: string = MARKS_DIRECTORY, sysfs: string = "/sys") {
    this.#directory = directory;
    this.#sysfs = sysfs;
  }

  /** Before the kernel tells of the device /dev/ublkbN. */
  add(kind: UdevMark, id: number): void {
    // A number that was another's.
    this.remove(id);
    try {
      mkdirSync(join(this.#directory, kind), { recursive: true, mode: 0o755 });
      writeFileSync(join(this.#directory, kind, `ublkb${id}`), "");
    } catch {
      // No /run: no udev either.
    }
  }

  remove(id: number): void {
    this.#removeFiles(`ublkb${id}`);
    this.#removeEmpty();
  }

  /** Those of devices that are gone: a killed daemon's. */
  removeStale(): void {
    for (const kind of KINDS) {
      for (const name of names(join(this.#directory, kind))) {
        if (existsSync(join(this.#sysfs, "block", name))) continue;
        this.#removeFiles(name);
      }
    }
    this.#removeEmpty();
  }

  #removeFiles(name: string): void {
    for (const kind of KINDS) {
      try {
        rmSync(join(this.#directory, kind, name), { force: true });
      } catch {
        // Nor could it be made.
      }
    }
  }

  #removeEmpty(): void {
    for (const folder of [...KINDS.map((kind) => join(this.#directory, kind)), this.#directory]) {
      try {
        rmdirSync(folder);
      } catch {
        // It is in use, or was never made.
      }
    }
  }
}

export const udevMarks: UdevMarks = new UdevMarks();

function names(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}
