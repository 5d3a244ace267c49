/**
 * Which boots have used a directory for persistent state, as far as it can be known: the last two are in
 * it, by the kernel's boot ids, and the machine's own counters of its boots with them.
 */

import {
  type BootCounters,
  type BootMark,
  readBootCounters,
  readBootId,
} from "@blksnap/linux-block";
import { decodeRecord, encodeRecord } from "./record-format.js";

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
