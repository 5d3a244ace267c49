/**
 * The journal of a persistent tracker: no write reaches the original before its blocks are recorded as changed, on the
 * medium. A block is recorded once per interval; a write whose blocks are all recorded costs a read of a bitmap.
 *
 * ```
 *   logged    bit per block: an entry has been appended         durable    the entry is on the medium
 *
 *   admit(tag) ── all durable ─▶ continues
 *              └─ else: append what is not logged, wait for the commit ──▶ onAdmitted(tag)
 * ```
 *
 * Ahead of a sequential writer, blocks are recorded in advance: as many as it has written without a gap, up to
 * AHEAD_BYTES. After a power cut these count as changed without being so: never more than were really changed.
 */
import type { CbtInfo } from "@blksnap/engine";
import type { JournalWriter } from "@blksnap/journal";
import { assert, type Reactor } from "@blksnap/uring";
import type { AreaId } from "./area-id.js";
import type { IoTicker } from "./io-ticker.js";
import { type AppendEntry, CbtOp, encodeAreaLost, encodeSwitch } from "./journal-entries.js";
import { JournalIo, type JournalSetup, type LogLocation } from "./journal-io.js";
import { Slices } from "./slices.js";
import { REACTOR_TURN_UNITS } from "./turns.js";

const AHEAD_BYTES = 4 * 2 ** 20;
/** Entries besides those of requests: takes and losses, two entries each. */
const SPARE_ENTRIES = 32;
/** As many are repeated in a longer log: a commit has room for them. */
const LOST_AREAS_MAX = 8;

export interface CbtJournalOptions {
  readonly reactor: Reactor;
  readonly setup: JournalSetup;
  /** See JournalIoOptions. */
  readonly ticker?: IoTicker;
  readonly blockShift: number;
  readonly blockCount: number;
  /** Requests that may wait: tags 0 to requestsMax - 1. */
  readonly requestsMax: number;
  /** Whether the map has the block marked as changed since the last take. */
  readonly isMarked: (block: number) => boolean;
  /** The request may continue. */
  readonly onAdmitted: (tag: number) => void;
  readonly onFault: (errno: number) => void;
  readonly onLow: () => void;
  /** Most blocks to examine in one turn. */
  readonly turnUnits?: number;
}

export class CbtJournal {
  readonly io: JournalIo;
  readonly #options: CbtJournalOptions;
  readonly #blockBytesInverse: number;
  readonly #aheadBlocks: number;
  readonly #logged: Int32Array;
  readonly #durable: Int32Array;
  /** Requests that wait, in order, each for a commit: a ring of requestsMax entries. */
  readonly #waiting: Int32Array;
  readonly #awaited: Int32Array;
  #waitingHead = 0;
  #waitingCount = 0;
  /** Entries of earlier commits, and those of this one before its last SWITCH, belong to an older interval. */
  #intervalCommit: number;
  /** All writes wait for this commit, whatever their blocks. */
  #barrier: number;
  #onCommitted: { commit: number; callback: () => void }[] = [];
  /**
   * The first areas that have lost old data since the last take: those that did not continue, and the one that was
   * taken. Further areas were never part of a snapshot.
   */
  #lostAreas: AreaId[] = [];
  #dropped = false;
  readonly #slices: Slices;
  readonly #turnWords: number;
  #onMirrored: ((firstSequence: number | null) => void) | undefined;

  constructor(options: CbtJournalOptions) {
    this.#options = options;
    this.#slices = new Slices(options.reactor);
    this.#turnWords = Math.ceil((options.turnUnits ?? REACTOR_TURN_UNITS) / 32);
    this.#blockBytesInverse = 1 / 2 ** options.blockShift;
    this.#aheadBlocks = Math.floor(AHEAD_BYTES * this.#blockBytesInverse);
    const words = Math.ceil(options.blockCount / 32);
    this.#logged = new Int32Array(words);
    this.#durable = new Int32Array(words);
    this.#waiting = new Int32Array(options.requestsMax);
    this.#awaited = new Int32Array(options.requestsMax);
    this.io = new JournalIo({
      reactor: options.reactor,
      setup: options.setup,
      ticker: options.ticker,
      entriesMax: options.requestsMax + SPARE_ENTRIES,
      syncFirst: [],
      onCommitted: (writer) => this.#committed(writer),
      onFault: options.onFault,
      onLow: options.onLow,
    });
    this.#intervalCommit = this.io.writer.committed;
    this.#barrier = this.io.writer.committed;
  }

  /**
   * A write, discard or write-zeroes is about to be issued. True: it may be. False: onAdmitted(tag) is called when it
   * may.
   * @param id passed to onAdmitted, if it differs from the index of the range
   */
  admit(
    offsetBytes: Float64Array,
    lengthBytes: Float64Array,
    tag: number,
    id: number = tag,
  ): boolean {
    if (this.#dropped) return true;
    const first = (offsetBytes[tag] * this.#blockBytesInverse) | 0;
    const last = ((offsetBytes[tag] + lengthBytes[tag] - 1) * this.#blockBytesInverse) | 0;
    const { writer } = this.io;
    if (this.#all(this.#durable, first, last)) {
      if (this.#barrier - writer.committed <= 0) return true;
    } else if (!this.#all(this.#logged, first, last)) this.#log(first, last);
    // Blocks that are logged but not durable are in the commit being filled, or else in the one in flight.
    const { fillingCommit } = writer;
    this.#wait(id, writer.fillingEntries > 0 ? fillingCommit : (fillingCommit - 1) | 0);
    this.io.commitSoon();
    return false;
  }

  /** A write to the image is about to be issued: it waits until its blocks are recorded. */
  admitImage(
    offsetBytes: Float64Array,
    lengthBytes: Float64Array,
    tag: number,
    id: number,
  ): boolean {
    if (this.#dropped) return true;
    const first = (offsetBytes[tag] * this.#blockBytesInverse) | 0;
    const last = ((offsetBytes[tag] + lengthBytes[tag] - 1) * this.#blockBytesInverse) | 0;
    // The engine refuses such a request: none of it is issued.
    if (first < 0 || last < first || last >= this.#options.blockCount) return true;
    this.io.writer.append(CbtOp.MARK_BOTH, first, last - first + 1, 0);
    this.#wait(id, this.io.writer.fillingCommit);
    this.io.commitSoon();
    return false;
  }

  /**
   * A take: begins a new interval, in which nothing is recorded yet. No write is in flight.
   * @param before the map's state before the switch
   * @param area the area that is taken
   */
  noteSwitch(before: CbtInfo, area: AreaId): void {
    if (this.#dropped) return;
    this.#logged.fill(0);
    this.#durable.fill(0);
    this.#intervalCommit = this.io.writer.fillingCommit;
    this.#lostAreas = [];
    encodeSwitch(before, area, this.#append);
    this.io.commitSoon();
  }

  /** Old data of an area was lost: no write continues before that is recorded. */
  noteAreaLost(area: AreaId): void {
    if (this.#dropped || this.#lostAreas.includes(area)) return;
    if (this.#lostAreas.length < LOST_AREAS_MAX) this.#lostAreas.push(area);
    this.#barrier = this.io.writer.fillingCommit;
    this.#appendLost(area);
  }

  /**
   * Mirrors all entries to the successor from now on. The successor's checkpoint will have the marked blocks, so blocks
   * recorded ahead of their write are forgotten, in slices; and all entries so far are committed, since no checkpoint
   * has losses. Then `done` receives the sequence number of the successor's first sector, and the checkpoint may be
   * made; or null if the journal has failed, or was dropped. Only while idle.
   */
  mirror(location: LogLocation, done: (firstSequence: number | null) => void): void {
    if (!this.#dropped) for (const area of this.#lostAreas) this.#appendLost(area);
    let firstSequence: number | null = null;
    try {
      if (!this.#dropped) firstSequence = this.io.mirror(location);
    } finally {
      // Also if the reactor has no room for another file: the caller waits for an answer.
      if (firstSequence === null) done(null);
    }
    if (firstSequence === null) return;
    this.#onMirrored = done;
    let left = 2;
    const oneEnded = (): void => {
      if (--left === 0) this.#notifyMirrored(firstSequence);
    };
    // The old log has room for the entries so far, but perhaps not for later ones.
    this.whenCommitted(oneEnded);
    let word = 0;
    this.#slices.run(() => {
      const end = Math.min(word + this.#turnWords, this.#logged.length);
      for (; word < end; word++) this.#forgetAhead(word);
      if (word < this.#logged.length) return true;
      oneEnded();
      return false;
    });
  }

  #notifyMirrored(firstSequence: number | null): void {
    const onMirrored = this.#onMirrored;
    this.#onMirrored = undefined;
    onMirrored?.(firstSequence);
  }

  /**
   * Forgets blocks that were recorded ahead of their write. An earlier write to such a block has marked it, before the
   * checkpoint is made; a later one finds the block not recorded.
   */
  #forgetAhead(word: number): void {
    const { isMarked } = this.#options;
    // An entry of the commit being filled, cleared at an earlier rotation, may be durable by now.
    let bits = this.#logged[word] | this.#durable[word];
    for (; bits !== 0; bits &= bits - 1) {
      const lowest = bits & -bits;
      if (isMarked(word * 32 + 31 - Math.clz32(lowest))) continue;
      this.#logged[word] &= ~lowest;
      this.#durable[word] &= ~lowest;
    }
  }

  /** Calls back when all entries so far are on the medium, or the journal was given up. */
  whenCommitted(callback: () => void): void {
    const { writer } = this.io;
    if (this.#dropped || !this.io.isBusy) callback();
    else {
      const commit = writer.fillingEntries > 0 ? writer.fillingCommit : writer.committed + 1;
      this.#onCommitted.push({ commit, callback });
    }
  }

  /** Ends the journal: all requests that wait for it continue. */
  drop(): void {
    if (this.#dropped) return;
    this.#dropped = true;
    this.#slices.close();
    this.io.close();
    for (; this.#waitingCount > 0; ) this.#options.onAdmitted(this.#popWaiting());
    this.#notifyMirrored(null);
    for (const { callback } of this.#onCommitted.splice(0)) callback();
  }

  readonly #append: AppendEntry = (op, a, b, c) => this.io.writer.append(op, a, b, c);

  #appendLost(area: AreaId): void {
    encodeAreaLost(area, this.#append);
    this.io.commitSoon();
  }

  /** Appends one entry that covers [first, last], and the blocks ahead if the writer continues a sequence. */
  #log(first: number, last: number): void {
    const { blockCount } = this.#options;
    let end = last + 1;
    const most = Math.min(end + this.#markedBefore(first), blockCount);
    while (end < most && !this.#all(this.#logged, end, end)) end++;
    this.io.writer.append(CbtOp.MARK, first, end - first, 0);
    set(this.#logged, first, end);
  }

  /** How many consecutive blocks before this one are marked, at most aheadBlocks. */
  #markedBefore(first: number): number {
    const { isMarked } = this.#options;
    const least = Math.max(0, first - this.#aheadBlocks);
    let block = first;
    while (block > least && isMarked(block - 1)) block--;
    return first - block;
  }

  #all(bits: Int32Array, first: number, last: number): boolean {
    for (let block = first; block <= last; block++) {
      if (((bits[block >> 5] >>> (block & 31)) & 1) === 0) return false;
    }
    return true;
  }

  #wait(tag: number, commit: number): void {
    const { requestsMax } = this.#options;
    assert(this.#waitingCount < requestsMax, "more requests wait than there are");
    const place = (this.#waitingHead + this.#waitingCount++) % requestsMax;
    this.#waiting[place] = tag;
    this.#awaited[place] = commit;
  }

  #popWaiting(): number {
    const tag = this.#waiting[this.#waitingHead];
    this.#waitingHead = (this.#waitingHead + 1) % this.#options.requestsMax;
    this.#waitingCount--;
    return tag;
  }

  #committed(writer: JournalWriter): void {
    const commit = (writer.committed + 1) | 0;
    const age = this.#intervalCommit - commit;
    if (age <= 0) this.#setDurable(writer, age === 0);
    while (this.#waitingCount > 0 && this.#awaited[this.#waitingHead] - commit <= 0) {
      this.#options.onAdmitted(this.#popWaiting());
    }
    if (this.#onCommitted.length > 0) this.#notifyCommitted(commit);
  }

  #setDurable(writer: JournalWriter, afterSwitch: boolean): void {
    let from = 0;
    if (afterSwitch) {
      for (let i = 0; i < writer.sealedEntries; i++) {
        if (writer.sealedWord(i, 0) === CbtOp.SWITCH) from = i + 1;
      }
    }
    for (let i = from; i < writer.sealedEntries; i++) {
      if (writer.sealedWord(i, 0) !== CbtOp.MARK) continue;
      const first = writer.sealedWord(i, 1);
      set(this.#durable, first, first + writer.sealedWord(i, 2));
    }
  }

  #notifyCommitted(commit: number): void {
    const due = this.#onCommitted.filter((one) => one.commit - commit <= 0);
    this.#onCommitted = this.#onCommitted.filter((one) => one.commit - commit > 0);
    for (const { callback } of due) callback();
  }
}

/** Sets bits [from, to). */
function set(bits: Int32Array, from: number, to: number): void {
  for (let block = from; block < to; block++) bits[block >> 5] |= 1 << (block & 31);
}
