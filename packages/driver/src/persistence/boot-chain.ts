/**
 * Which boots have used a directory for persistent state, as far as it can be known: the last two are in
 * it, by the kernel's boot ids, and the machine's own counters of its boots with them.
 */
import { readFile } from "node:fs/promises";
import { decodeRecord, encodeRecord } from "../state/record-format.js";
import { type BootCounters, readBootCounters } from "./boot-counters.js";

export interface BootMark {
  /** The boot before, of those in which a daemon used the directory; null where that is not known. */
  readonly previousBootId: string | null;
  readonly counters: BootCounters;
}

/** What is known of a boot that nobody has linked to another one: it proves nothing. */
export const UNKNOWN_BOOT: BootMark = {
  previousBootId: null,
  counters: { tpmResets: null, firmwareBoots: null, isFirst: false },
};

/** What is recorded. */
interface BootsRecord {
  readonly bootId: string;
  readonly previousBootId: string | null;
}

/** Where the last boots are recorded. */
export interface BootText {
  read(): Promise<string>;
  /** Ends when it is on the medium. What is there after a power cut meanwhile must not be believed. */
  write(text: string): Promise<void>;
}

export async function readBootId(proc = "/proc"): Promise<string> {
  return (await readFile(`${proc}/sys/kernel/random/boot_id`, "utf8")).trim();
}

/**
 * Links this boot to the one before. What cannot be read or written breaks the chain here, and at the
 * next boot again.
 */
export async function chainBoot(
  text: BootText,
  readId: () => Promise<string> = readBootId,
  readCounters: () => Promise<BootCounters> = readBootCounters,
): Promise<BootMark> {
  const [bootId, counters] = [await readId(), await readCounters()];
  try {
    const found = decodeRecord(await text.read());
    const last = found.problem === undefined ? (found.value as BootsRecord) : undefined;
    if (last?.bootId === bootId) return { previousBootId: last.previousBootId, counters };
    const previousBootId = last?.bootId ?? null;
    await text.write(encodeRecord({ bootId, previousBootId } satisfies BootsRecord));
    return { previousBootId, counters };
  } catch {
    return { previousBootId: null, counters };
  }
}
