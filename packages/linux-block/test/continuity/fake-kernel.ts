/** A sysfs and a procfs in a temporary folder, with a disk and its partitions. */
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";

export const BOOT_ID = "0f2b4a1c-7d7e-4a3b-9c55-2f1d3b6a9e10";

export class FakeKernel {
  readonly root: string = mkdtempSync(join(tmpdir(), "blksnap-kernel-"));
  readonly sysfs: string = join(this.root, "sys");
  readonly proc: string = join(this.root, "proc");

  constructor() {
    this.#write(join(this.proc, "sys/kernel/random/boot_id"), BOOT_ID);
  }

  /** @param path below devices/, as the kernel nests them: a partition inside its disk */
  device(number: string, path: string, attributes: Record<string, string>): void {
    const folder = join(this.sysfs, "devices", path);
    mkdirSync(folder, { recursive: true });
    for (const [name, value] of Object.entries(attributes)) this.set(path, name, value);
    mkdirSync(join(this.sysfs, "dev/block"), { recursive: true });
    // As in the real one: a relative link, from which `..` does not lead to the disk.
    symlinkSync(join("../../devices", path), join(this.sysfs, "dev/block", number));
  }

  set(path: string, attribute: string, value: string): void {
    this.#write(join(this.sysfs, "devices", path, attribute), value);
  }

  unset(path: string, attribute: string): void {
    rmSync(join(this.sysfs, "devices", path, attribute));
  }

  remove(): void {
    rmSync(this.root, { recursive: true });
  }

  #write(path: string, text: string): void {
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, `${text}\n`);
  }
}

/** The text of `stat`, in which every other field holds a number that must not be taken for these. */
export function statText(writeSectors: number, discardSectors: number): string {
  return `  101 102 103 104 105 106 ${writeSectors} 108 0 110 111 112 113 ${discardSectors} 115 116 117`;
}
