import { crc32 } from "node:zlib";
import { JournalError } from "./errors.js";
import {
  ENTRIES_PER_SECTOR,
  ENTRY_WORDS,
  SECTOR_BYTES,
  SECTOR_CHECKED_BYTES,
  SECTOR_MAGIC,
  SECTOR_WORDS,
  SectorWord,
  tagOf,
} from "./layout.js";

/** Takes the entries of a log, in the order in which they were appended. */
export type EntryVisitor = (op: number, a: number, b: number, c: number) => void;

/** Where a log ends. */
export interface LogEnd {
  /** Sectors that hold entries. */
  readonly usedSectors: number;
  /** Parts of an incomplete commit lie behind them: zero the rest before anything is appended. */
  readonly torn: boolean;
  readonly nextSequence: number;
  readonly nextCommit: number;
}

const ABSENT = -1;

/**
 * Reads a log: all complete commits, and what is there of the last one up to its first missing sector.
 * The numbers of an entry come back as unsigned 32-bit integers.
 * @param log the log's bytes, aligned to 4
 * @throws JournalError JOURNAL_DAMAGED; nothing was visited then
 */
export function readLog(
  log: Uint8Array,
  id: Uint8Array,
  firstSequence: number,
  visit: EntryVisitor,
): LogEnd {
  const words = new Uint32Array(log.buffer, log.byteOffset, log.length / 4);
  const end = endOf(log, words, tagOf(id) >>> 0, firstSequence);
  for (let sector = 0; sector < end.usedSectors; sector++) {
    const at = sector * SECTOR_WORDS;
    const entries = words[at + SectorWord.ENTRIES] as number;
    for (let entry = 0; entry < entries; entry++) {
      const from = at + SectorWord.FIRST_ENTRY + entry * ENTRY_WORDS;
      visit(
        words[from] as number,
        words[from + 1] as number,
        words[from + 2] as number,
        words[from + 3] as number,
      );
    }
  }
  return end;
}

function endOf(log: Uint8Array, words: Uint32Array, tag: number, firstSequence: number): LogEnd {
  const sectors = Math.floor(log.length / SECTOR_BYTES);
  let used = 0;
  let lastCommit = 0;
  while (used < sectors) {
    const commit = commitOf(log, words, used, tag, firstSequence);
    if (commit === ABSENT) break;
    if (used > 0 && commit !== lastCommit && commit !== lastCommit + 1) {
      throw damaged(used, `belongs to commit ${commit} after ${lastCommit}`);
    }
    lastCommit = commit;
    used++;
  }
  // What lies behind the first missing sector can only be of the commit that was being written.
  let torn = 0;
  for (let sector = used + 1; sector < sectors; sector++) {
    const commit = commitOf(log, words, sector, tag, firstSequence);
    if (commit === ABSENT) continue;
    const possible = commit === lastCommit || commit === lastCommit + 1 || used === 0;
    if (!possible || (torn !== 0 && commit !== torn)) {
      throw damaged(used, `is missing before commit ${commit}`);
    }
    torn = commit;
  }
  return {
    usedSectors: used,
    nextSequence: (firstSequence + used) >>> 0,
    nextCommit: (lastCommit + 1) >>> 0,
    torn: torn !== 0,
  };
}

/** The commit that a sector belongs to, or ABSENT. */
function commitOf(
  log: Uint8Array,
  words: Uint32Array,
  sector: number,
  tag: number,
  firstSequence: number,
): number {
  const at = sector * SECTOR_WORDS;
  if (isZero(words, at)) return ABSENT;
  const bytes = log.subarray(sector * SECTOR_BYTES, sector * SECTOR_BYTES + SECTOR_CHECKED_BYTES);
  if (words[at + SectorWord.CHECKSUM] !== crc32(bytes)) throw damaged(sector, "is damaged");
  const right =
    words[at + SectorWord.MAGIC] === SECTOR_MAGIC &&
    words[at + SectorWord.TAG] === tag &&
    words[at + SectorWord.SEQUENCE] === (firstSequence + sector) >>> 0 &&
    (words[at + SectorWord.ENTRIES] as number) <= ENTRIES_PER_SECTOR;
  if (!right) throw damaged(sector, "belongs to another journal");
  return words[at + SectorWord.COMMIT] as number;
}

function isZero(words: Uint32Array, at: number): boolean {
  for (let word = at; word < at + SECTOR_WORDS; word++) if (words[word] !== 0) return false;
  return true;
}

function damaged(sector: number, what: string): JournalError {
  return new JournalError("JOURNAL_DAMAGED", `sector ${sector} of the journal's log ${what}`);
}
