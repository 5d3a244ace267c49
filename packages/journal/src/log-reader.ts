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

/** Receives the entries of a log, in the order in which they were appended. */
export type EntryVisitor = (op: number, a: number, b: number, c: number) => void;

/** Where a log ends. */
export interface LogEnd {
  /** Sectors that hold entries. */
  readonly usedSectors: number;
  /** Parts of an incomplete commit follow: zero the rest before appending. */
  readonly torn: boolean;
  readonly nextSequence: number;
  readonly nextCommit: number;
}

const ABSENT = -1;

/**
 * Reads a log: all complete commits, and the last one up to its first missing sector. An entry's numbers are returned
 * as unsigned 32-bit integers.
 * @param log the log's bytes, aligned to 4
 * @throws JournalError JOURNAL_DAMAGED; nothing was visited in that case
 */
export function readLog(
  log: Uint8Array,
  id: Uint8Array,
  firstSequence: number,
  visit: EntryVisitor,
): LogEnd {
  const check = new LogCheck(id, firstSequence);
  check.add(log);
  const { end } = check;
  visitEntries(log.subarray(0, end.usedSectors * SECTOR_BYTES), visit);
  return end;
}

/** Checks a log that is passed in windows of whole sectors, in order. */
export class LogCheck {
  readonly #tag: number;
  readonly #firstSequence: number;
  #sectors = 0;
  #used = 0;
  /** The first missing sector was found. */
  #isOver = false;
  #lastCommit = 0;
  #torn = 0;

  constructor(id: Uint8Array, firstSequence: number) {
    this.#tag = tagOf(id) >>> 0;
    this.#firstSequence = firstSequence;
  }

  /** @param window aligned to 4 @throws JournalError JOURNAL_DAMAGED */
  add(window: Uint8Array): void {
    const words = new Uint32Array(window.buffer, window.byteOffset, window.length / 4);
    const sectors = Math.floor(window.length / SECTOR_BYTES);
    for (let sector = 0; sector < sectors; sector++) {
      const number = this.#sectors++;
      const commit = commitOf(window, words, sector, number, this.#tag, this.#firstSequence);
      if (this.#isOver) this.#afterEnd(commit);
      else if (commit === ABSENT) this.#isOver = true;
      else this.#inOrder(number, commit);
    }
  }

  /** Where the log ends, once all windows were added. */
  get end(): LogEnd {
    return {
      usedSectors: this.#used,
      nextSequence: (this.#firstSequence + this.#used) >>> 0,
      nextCommit: (this.#lastCommit + 1) >>> 0,
      torn: this.#torn !== 0,
    };
  }

  #inOrder(sector: number, commit: number): void {
    const last = this.#lastCommit;
    if (sector > 0 && commit !== last && commit !== last + 1) {
      throw damaged(sector, `belongs to commit ${commit} after ${last}`);
    }
    this.#lastCommit = commit;
    this.#used++;
  }

  /** After the first missing sector there can only be parts of the commit that was being written. */
  #afterEnd(commit: number): void {
    if (commit === ABSENT) return;
    const last = this.#lastCommit;
    const possible = commit === last || commit === last + 1 || this.#used === 0;
    if (!possible || (this.#torn !== 0 && commit !== this.#torn)) {
      throw damaged(this.#used, `is missing before commit ${commit}`);
    }
    this.#torn = commit;
  }
}

/** Visits the entries of checked sectors. @param sectors aligned to 4 */
export function visitEntries(sectors: Uint8Array, visit: EntryVisitor): void {
  const words = new Uint32Array(sectors.buffer, sectors.byteOffset, sectors.length / 4);
  for (let at = 0; at + SECTOR_WORDS <= words.length; at += SECTOR_WORDS) {
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
}

/** The commit that a sector belongs to, or ABSENT. */
function commitOf(
  window: Uint8Array,
  words: Uint32Array,
  sector: number,
  number: number,
  tag: number,
  firstSequence: number,
): number {
  const at = sector * SECTOR_WORDS;
  if (isZero(words, at)) return ABSENT;
  const from = sector * SECTOR_BYTES;
  const bytes = window.subarray(from, from + SECTOR_CHECKED_BYTES);
  if (words[at + SectorWord.CHECKSUM] !== crc32(bytes)) throw damaged(number, "is damaged");
  const right =
    words[at + SectorWord.MAGIC] === SECTOR_MAGIC &&
    words[at + SectorWord.TAG] === tag &&
    words[at + SectorWord.SEQUENCE] === (firstSequence + number) >>> 0 &&
    (words[at + SectorWord.ENTRIES] as number) <= ENTRIES_PER_SECTOR;
  if (!right) throw damaged(number, "belongs to another journal");
  return words[at + SectorWord.COMMIT] as number;
}

function isZero(words: Uint32Array, at: number): boolean {
  for (let word = at; word < at + SECTOR_WORDS; word++) if (words[word] !== 0) return false;
  return true;
}

function damaged(sector: number, what: string): JournalError {
  return new JournalError("JOURNAL_DAMAGED", `sector ${sector} of the journal's log ${what}`);
}
