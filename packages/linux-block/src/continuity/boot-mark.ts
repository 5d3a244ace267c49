/** What tells one boot of the machine from another. */
import { readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";

export interface BootCounters {
  readonly tpmResets: number | null;
  readonly firmwareBoots: number | null;
  /** The firmware has started this kernel, by way of a boot loader at most, and it never slept since. */
  readonly isFirst: boolean;
}

export interface BootMark {
  /** The boot before, of those in which a daemon used the directory; null where that is not known. */
  readonly previousBootId: string | null;
  readonly counters: BootCounters;
}

/** What is known of a boot that is linked to no other one: it proves nothing. */
export const UNKNOWN_BOOT: BootMark = {
  previousBootId: null,
  counters: { tpmResets: null, firmwareBoots: null, isFirst: false },
};

const BOOT_ID = "sys/kernel/random/boot_id";

export async function readBootId(proc = "/proc"): Promise<string> {
  return (await readFile(`${proc}/${BOOT_ID}`, "utf8")).trim();
}

/** As readBootId(), at once: it comes from no medium. */
export function readBootIdSync(): string {
  return readFileSync(`/proc/${BOOT_ID}`, "utf8").trim();
}
