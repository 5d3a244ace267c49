/**
 * Collects entries into commits, in memory that the caller writes to the file.
 *
 * ```
 *   append ──▶ filling half ──seal()──▶ sealed half ── caller: write, fsync ──▶ committed()
 *                  ▲                         │
 *                  └───────── swap ──────────┘
 * ```
 *
 * One commit is in flight at a time; entries appended meanwhile belong to the next. Nothing is allocated after
 * construction.
 *
 * A commit may begin with a prefix: entries that precede all appended ones and are added just before the commit is
 * sealed. They can describe the state at that moment, before the appended entries.
 */
import { JournalError } from "./errors.js";
import {
  ENTRIES_PER_SECTOR,
  ENTRY_WORDS,
  ID_BYTES,
  SECTOR_BYTES,
  SECTOR_MAGIC,
  SECTOR_WORDS,
  SectorWord,
  tagOf,
} from "./layout.js";
import { sectorChecksum } from "./sector-checksum.js";

export interface JournalWriterOptions {
  /** writerBytes(entriesMax) bytes, all zero; used by the writer from now on. */
  readonly buffer: ArrayBufferLike;
  /** 16 bytes: the id in the journal's header. */
  readonly id: Uint8Array;
  /** Entries that one commit can hold. */
  readonly entriesMax: number;
  /** Entries that a commit's prefix can hold; 0 if not given. */
  readonly prefixEntriesMax?: number;
  readonly nextSequence: number;
  readonly nextCommit: number;
}

function sectorsFor(entriesMax: number): number {
  return Math.ceil(entriesMax / ENTRIES_PER_SECTOR);
}

/** Bytes of memory that a writer needs. */
export function writerBytes(entriesMax: number, prefixEntriesMax: number = 0): number {
  return 2 * (sectorsFor(entriesMax) + sectorsFor(prefixEntriesMax)) * SECTOR_BYTES;
}

export class JournalWriter {
  /** Number of the commit that append() adds to, from 1 on; compare numbers by difference. */
  fillingCommit: number;
  /** Number of the last commit that is on the medium. */
  committed: number;
  /** Sequence number of the next sealed sector. */
  nextSequence: number;
  /** The sealed half: its offset in the buffer, its length, its number of entries without the prefix. */
  sealedOffsetBytes = 0;
  sealedSectors = 0;
  sealedEntries = 0;
  /** Entries appended and not sealed yet. */
  fillingEntries = 0;
  /** Entries of the prefix, not sealed yet. */
  prefixEntries = 0;
  readonly #words: Int32Array;
  readonly #tag: number;
  readonly #entriesMax: number;
  readonly #prefixEntriesMax: number;
  readonly #prefixSectors: number;
  readonly #halfSectors: number;
  /** First sector of the half being filled, which leaves room for the prefix. */
  #fillingSector = 0;
  #sealedEntriesSector = 0;

  /** @throws JournalError ARGUMENT_INVALID */
  constructor(options: JournalWriterOptions) {
    const { buffer, entriesMax, id, prefixEntriesMax = 0 } = options;
    const bytes = writerBytes(entriesMax, prefixEntriesMax);
    if (buffer.byteLength < bytes || entriesMax < 1 || id.length !== ID_BYTES) {
      throw new JournalError("ARGUMENT_INVALID", "a journal writer needs more memory, or an id");
    }
    this.#entriesMax = entriesMax;
    this.#prefixEntriesMax = prefixEntriesMax;
    this.#prefixSectors = sectorsFor(prefixEntriesMax);
    this.#halfSectors = this.#prefixSectors + sectorsFor(entriesMax);
    this.#words = new Int32Array(buffer);
    this.#tag = tagOf(id);
    this.nextSequence = options.nextSequence;
    this.fillingCommit = options.nextCommit;
    this.committed = options.nextCommit - 1;
  }

  /** Entries that the present commit still has room for. */
  get room(): number {
    return this.#entriesMax - this.fillingEntries;
  }

  /** True between seal() and committed(). */
  get isCommitting(): boolean {
    return this.sealedSectors > 0;
  }

  /** Adds an entry of four 32-bit integers. @throws JournalError ARGUMENT_INVALID without room */
  append(op: number, a: number, b: number, c: number): void {
    if (this.room === 0) throw new JournalError("ARGUMENT_INVALID", "the commit is full");
    this.#write(this.#fillingSector + this.#prefixSectors, this.fillingEntries++, op, a, b, c);
  }

  /** Entries that the present commit's prefix still has room for. */
  get prefixRoom(): number {
    return this.#prefixEntriesMax - this.prefixEntries;
  }

  /** Sectors that seal() would make now. */
  get sectorsToSeal(): number {
    return sectorsFor(this.prefixEntries) + sectorsFor(this.fillingEntries);
  }

  /** Adds an entry to the prefix. @throws JournalError ARGUMENT_INVALID without room */
  prepend(op: number, a: number, b: number, c: number): void {
    if (this.prefixRoom <= 0) throw new JournalError("ARGUMENT_INVALID", "the prefix is full");
    this.#write(this.#fillingSector, this.prefixEntries++, op, a, b, c);
  }

  /** Completes the commit's sectors, at sealedOffsetBytes. Only while no commit is sealed. */
  seal(): void {
    if (this.isCommitting || this.fillingEntries + this.prefixEntries === 0) {
      throw new JournalError("ARGUMENT_INVALID", "nothing to seal, or a commit is on its way");
    }
    const entriesSector = this.#fillingSector + this.#prefixSectors;
    const prefixSectors = sectorsFor(this.prefixEntries);
    const first = entriesSector - prefixSectors;
    if (prefixSectors > 0) this.#movePrefix(first, prefixSectors);
    for (let i = 0; i < prefixSectors; i++) this.#finish(first + i, i, this.prefixEntries);
    const sectors = sectorsFor(this.fillingEntries);
    for (let i = 0; i < sectors; i++) this.#finish(entriesSector + i, i, this.fillingEntries);
    this.sealedOffsetBytes = first * SECTOR_BYTES;
    this.sealedSectors = prefixSectors + sectors;
    this.sealedEntries = this.fillingEntries;
    this.#sealedEntriesSector = entriesSector;
    this.fillingEntries = 0;
    this.prefixEntries = 0;
    this.fillingCommit = (this.fillingCommit + 1) | 0;
    this.#fillingSector = this.#fillingSector === 0 ? this.#halfSectors : 0;
  }

  /** Word `word` (0: op, 1 to 3: a, b, c) of entry `index` of the sealed commit. */
  sealedWord(index: number, word: number): number {
    const sector = this.#sealedEntriesSector + ((index / ENTRIES_PER_SECTOR) | 0);
    const entry = index % ENTRIES_PER_SECTOR;
    return this.#words[
      sector * SECTOR_WORDS + SectorWord.FIRST_ENTRY + entry * ENTRY_WORDS + word
    ] as number;
  }

  /** The sealed commit is on the medium. */
  complete(): void {
    const first = this.sealedOffsetBytes / SECTOR_BYTES;
    // A partly filled sector must end in zeroes when the half is used again.
    this.#words.fill(0, first * SECTOR_WORDS, (first + this.sealedSectors) * SECTOR_WORDS);
    this.sealedSectors = 0;
    this.sealedEntries = 0;
    this.committed = (this.committed + 1) | 0;
  }

  #write(first: number, index: number, op: number, a: number, b: number, c: number): void {
    const sector = first + ((index / ENTRIES_PER_SECTOR) | 0);
    const at =
      sector * SECTOR_WORDS + SectorWord.FIRST_ENTRY + (index % ENTRIES_PER_SECTOR) * ENTRY_WORDS;
    const words = this.#words;
    words[at] = op;
    words[at + 1] = a;
    words[at + 2] = b;
    words[at + 3] = c;
  }

  /** The prefix was filled from the half's start: moves it to end where the other entries begin. */
  #movePrefix(to: number, sectors: number): void {
    const from = this.#fillingSector;
    if (to === from) return;
    const words = this.#words;
    words.copyWithin(to * SECTOR_WORDS, from * SECTOR_WORDS, (from + sectors) * SECTOR_WORDS);
    words.fill(0, from * SECTOR_WORDS, to * SECTOR_WORDS);
  }

  #finish(sector: number, index: number, entries: number): void {
    const words = this.#words;
    const at = sector * SECTOR_WORDS;
    words[at + SectorWord.MAGIC] = SECTOR_MAGIC;
    words[at + SectorWord.TAG] = this.#tag;
    words[at + SectorWord.SEQUENCE] = this.nextSequence;
    words[at + SectorWord.COMMIT] = this.fillingCommit;
    words[at + SectorWord.ENTRIES] = Math.min(
      entries - index * ENTRIES_PER_SECTOR,
      ENTRIES_PER_SECTOR,
    );
    words[at + SectorWord.CHECKSUM] = sectorChecksum(words, sector);
    this.nextSequence = (this.nextSequence + 1) | 0;
  }
}
