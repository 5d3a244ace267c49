/**
 * Files that tell udev rules the kind of a device: the kernel does not know it, and the first event comes before
 * rules could ask a daemon.
 */
import { existsSync, mkdirSync, rmdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { entriesOf } from "../sysfs-text.js";

/** Nothing depends on marks: if they cannot be created there are none. */
export class UdevMarks<Kind extends string> {
  readonly #directory: string;
  readonly #kinds: readonly Kind[];
  readonly #sysfs: string;

  constructor(directory: string, kinds: readonly Kind[], sysfs = "/sys") {
    this.#directory = directory;
    this.#kinds = kinds;
    this.#sysfs = sysfs;
  }

  /**
   * Call it before the kernel announces the device.
   * @param name as in /sys/block
   * @param text the file's content, one line
   */
  add(kind: Kind, name: string, text = ""): void {
    // The mark of an earlier device with this name.
    this.remove(name);
    try {
      mkdirSync(join(this.#directory, kind), { recursive: true, mode: 0o755 });
      writeFileSync(join(this.#directory, kind, name), text === "" ? "" : `${text}\n`);
    } catch {
      // No /run: no udev either.
    }
  }

  remove(name: string): void {
    this.#removeFiles(name);
    this.#removeEmpty();
  }

  /** Removes marks of devices that are gone, left by a killed daemon. */
  removeStale(): void {
    for (const kind of this.#kinds) {
      for (const name of entriesOf(join(this.#directory, kind))) {
        if (existsSync(join(this.#sysfs, "block", name))) continue;
        this.#removeFiles(name);
      }
    }
    this.#removeEmpty();
  }

  #removeFiles(name: string): void {
    for (const kind of this.#kinds) {
      try {
        rmSync(join(this.#directory, kind, name), { force: true });
      } catch {
        // It could not be created either.
      }
    }
  }

  #removeEmpty(): void {
    for (const folder of [
      ...this.#kinds.map((kind) => join(this.#directory, kind)),
      this.#directory,
    ]) {
      try {
        rmdirSync(folder);
      } catch {
        // It is not empty, or was never created.
      }
    }
  }
}
