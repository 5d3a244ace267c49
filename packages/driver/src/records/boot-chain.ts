/**
 * Which boots have used a directory for persistent state, as far as that can be known: it contains the kernel's boot
 * ids of the last two, and the machine's own boot counters.
 */

import {
  type BootCounters,
  type BootMark,
  readBootCounters,
  readBootId,
} from "@blksnap/linux-block";
import { decodeRecord, encodeRecord } from "./record-format.js";

/** The content of the record. */
interface BootsRecord {
  readonly bootId: string;
  readonly previousBootId: string | null;
}

/** Where the last boots are recorded. */
export interface BootText {
  read(): Promise<string>;
  /** Resolves when it is on the medium. After a power cut meanwhile, the content must not be trusted. */
  write(text: string): Promise<void>;
}

/**
 * Links this boot to the previous one. A read or write that fails breaks the chain here, and again at the next boot.
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
