/** Block devices in sysfs's layout, in a folder of the test. */
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";

export class DeviceTree {
  /** Stands for /sys, and for /dev if a test uses names. */
  readonly folder: string;

  constructor() {
    this.folder = mkdtempSync(join(tmpdir(), "blksnap-device-tree-"));
    mkdirSync(join(this.folder, "dev/block"), { recursive: true });
  }

  /** Creates a device of 1 MiB, or gives the number to another one. */
  add(number: string, place: string, files: Readonly<Record<string, string>>): void {
    for (const [name, text] of Object.entries({ size: "2048", ...files })) {
      const path = join(this.folder, "devices", place, name);
      mkdirSync(dirname(path), { recursive: true });
      writeFileSync(path, `${text}\n`);
    }
    rmSync(join(this.folder, "dev/block", number), { force: true });
    symlinkSync(join(this.folder, "devices", place), join(this.folder, "dev/block", number));
  }

  delete(): void {
    rmSync(this.folder, { recursive: true });
  }
}
