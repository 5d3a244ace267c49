/** Identifies a boot of the machine. */
import { readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";

export interface BootCounters {
  readonly tpmResets: number | null;
  readonly firmwareBoots: number | null;
  /** The firmware has started this kernel, directly or by a boot loader, and it never slept since. */
  readonly isFirst: boolean;
}

export interface BootMark {
  /** The previous boot in which a daemon used the directory; null if unknown. */
  readonly previousBootId: string | null;
  readonly counters: BootCounters;
}

/** A boot without a link to any other, which proves nothing. */
export const UNKNOWN_BOOT: BootMark = {
  previousBootId: null,
  counters: { tpmResets: null, firmwareBoots: null, isFirst: false },
};

const BOOT_ID = "sys/kernel/random/boot_id";

export async function readBootId(proc = "/proc"): Promise<string> {
  return (await readFile(`${proc}/${BOOT_ID}`, "utf8")).trim();
}

/** Like readBootId(), but synchronous: no medium is read. */
export function readBootIdSync(): string {
  return readFileSync(`/proc/${BOOT_ID}`, "utf8").trim();
}
