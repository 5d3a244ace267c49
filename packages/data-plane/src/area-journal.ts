/**
 * The journal of a diff area in a persistent snapshot. Copies and writes into slots end only when the data is on the
 * medium and the journal records where it is. The engine needs to know nothing of it, because it lets a write to the
 * original continue only when its copies have ended.
 *
 * ```
 *   copy or run done ──▶ entry ──▶ fdatasync its stores ─▶ journal, synced ──▶ onCopied, onRun
 * ```
 */
import { slotStore } from "@blksnap/diff-storage";
import { type DiffAreaMap, NO_SLOT } from "@blksnap/engine";
import { assert, type Reactor } from "@blksnap/uring";
import { AreaCompaction } from "./area-compaction.js";
import type { IoTicker } from "./io-ticker.js";
import { AreaOp, blockRange, CHUNK_BLOCKS_MAX } from "./journal-entries.js";
import { JournalIo, type JournalSetup, type LogLocation, type LogNeed } from "./journal-io.js";

/** Most entries for discards of the image in one commit; further ones are not recorded, which loses nothing. */
const RELEASE_ENTRIES = 64;
/** Most entries of a compaction in one commit: 16 KiB. */
const COMPACTION_ENTRIES = 960;

export interface AreaJournalOptions {
  readonly reactor: Reactor;
  readonly setup: JournalSetup;
  readonly ticker: IoTicker;
  /** Descriptors to sync the stores by, by store number; see slotStore(). */
  readonly syncFds: readonly number[];
  readonly copiesMax: number;
  readonly runsMax: number;
  /** The copy's data and its record are on the medium. */
  readonly onCopied: (copy: number) => void;
  /** The data of a write into a slot and its record are on the medium. */
  readonly onWritten: (run: number) => void;
  readonly onFault: (errno: number) => void;
  readonly onLow: (need: LogNeed) => void;
}

/** Ranges of requests, by tag. */
export interface ByteColumns {
  readonly offsetBytes: Float64Array;
  readonly lengthBytes: Float64Array;
}

export class AreaJournal {
  readonly io: JournalIo;
  readonly #options: AreaJournalOptions;
  /** What waits for the commit being filled, and for the one in flight: a copy, or -1 - run. */
  #filling: Int32Array;
  #sealed: Int32Array;
  #fillingCount = 0;
  #sealedCount = 0;
  #fillingCommit = 0;
  #dropped = false;
  #compaction: AreaCompaction | undefined;
  #onIdle: (() => void) | undefined;

  constructor(options: AreaJournalOptions) {
    this.#options = options;
    const waitersMax = options.copiesMax + options.runsMax;
    this.#filling = new Int32Array(waitersMax);
    this.#sealed = new Int32Array(waitersMax);
    this.io = new JournalIo({
      reactor: options.reactor,
      setup: options.setup,
      ticker: options.ticker,
      entriesMax: waitersMax + RELEASE_ENTRIES,
      prefixEntriesMax: COMPACTION_ENTRIES,
      syncFirst: options.syncFds,
      onCommitted: () => this.#committed(),
      onFault: options.onFault,
      onLow: options.onLow,
    });
    this.#fillingCommit = this.io.writer.fillingCommit;
  }

  /** Records that a copy has completed blocks [from, to) of the chunk in the slot. */
  copied(copy: number, chunk: number, slot: number, from: number, to: number): void {
    if (this.#dropped) this.#options.onCopied(copy);
    else this.#saved(copy, chunk, slot, from, to);
  }

  /** As copied(), for a write to the image. */
  written(run: number, chunk: number, slot: number, from: number, to: number): void {
    if (this.#dropped) this.#options.onWritten(run);
    else this.#saved(-1 - run, chunk, slot, from, to);
  }

  /** A discard of the image has ended: records the chunks that it released. Nothing waits for that. */
  recordDiscard({ offsetBytes, lengthBytes }: ByteColumns, tag: number, map: DiffAreaMap): void {
    const { chunkBytes } = map.geometry;
    const end = Math.ceil((offsetBytes[tag] + lengthBytes[tag]) / chunkBytes);
    let first = Math.ceil(offsetBytes[tag] / chunkBytes);
    while (first < end) {
      let after = first;
      while (after < end && map.isReleased(after) && map.slotOf(after) === NO_SLOT) after++;
      if (after > first) this.#released(first, after - first);
      first = after + 1;
    }
  }

  /**
   * Mirrors all commits to a successor, and writes the whole map to it. `onEnd` receives the sequence number of the
   * successor's first sector once the successor is complete on the medium; from then on the caller may rename it, and
   * has to call adopt(). It receives null if the journal has failed, was dropped, or cannot open the successor.
   */
  compact(
    location: LogLocation,
    map: DiffAreaMap,
    onEnd: (firstSequence: number | null) => void,
  ): void {
    const compaction = new AreaCompaction(map, onEnd);
    if (this.#dropped) {
      compaction.end(null);
      return;
    }
    this.#compaction?.end(null);
    this.#compaction = compaction;
    this.#whenIdle(() => {
      let firstSequence: number | null = null;
      try {
        if (!this.#dropped) firstSequence = this.io.mirror(location, compaction);
      } finally {
        // Also if the reactor has no room for another file: the caller waits for an answer.
        if (firstSequence === null) compaction.end(null);
        else compaction.firstSequence = firstSequence;
      }
    });
  }

  /** The successor takes the journal's place. `done` receives false if the journal has failed. */
  adopt(done: (adopted: boolean) => void): void {
    this.#whenIdle(() => done(!this.#dropped && this.io.adopt()));
  }

  /** Gives up the successor; the journal continues. */
  abandon(done: () => void): void {
    this.#whenIdle(() => {
      if (!this.#dropped) this.io.dropMirror();
      this.#compaction?.end(null);
      this.#compaction = undefined;
      done();
    });
  }

  /** Calls back when no commit is in flight, or the journal is dropped. Only one caller may wait at a time. */
  #whenIdle(callback: () => void): void {
    this.#onIdle = callback;
    this.io.whenIdle(() => this.#notifyIdle());
  }

  #notifyIdle(): void {
    const onIdle = this.#onIdle;
    this.#onIdle = undefined;
    onIdle?.();
  }

  /** Ends the journal: whatever waits for it continues. */
  drop(): void {
    if (this.#dropped) return;
    this.#dropped = true;
    this.io.close();
    this.#compaction?.end(null);
    this.#notify(this.#sealed, this.#sealedCount);
    this.#notify(this.#filling, this.#fillingCount);
    this.#sealedCount = 0;
    this.#fillingCount = 0;
  }

  #released(firstChunk: number, count: number): void {
    const { writer } = this.io;
    if (this.#dropped || writer.room <= this.#filling.length) return;
    writer.append(AreaOp.RELEASED, firstChunk, count, 0);
    this.io.commitSoon();
  }

  #saved(waiter: number, chunk: number, slot: number, from: number, to: number): void {
    assert(to <= CHUNK_BLOCKS_MAX, "a chunk has more blocks than an entry can say");
    const { writer } = this.io;
    if (writer.fillingCommit !== this.#fillingCommit) this.#swap();
    writer.append(AreaOp.SAVED, chunk, slot, blockRange(from, to));
    this.io.touch(slotStore(slot));
    this.#filling[this.#fillingCount++] = waiter;
    this.io.commitSoon();
  }

  /** The writer has sealed a commit: its waiters move to `sealed`. */
  #swap(): void {
    assert(this.#sealedCount === 0, "two commits are on their way");
    const filled = this.#filling;
    this.#filling = this.#sealed;
    this.#sealed = filled;
    this.#sealedCount = this.#fillingCount;
    this.#fillingCount = 0;
    this.#fillingCommit = this.io.writer.fillingCommit;
  }

  #committed(): void {
    if (this.io.writer.fillingCommit !== this.#fillingCommit) this.#swap();
    const count = this.#sealedCount;
    this.#sealedCount = 0;
    this.#notify(this.#sealed, count);
    this.#compaction?.committed((this.io.writer.committed + 1) | 0);
  }

  #notify(waiters: Int32Array, count: number): void {
    for (let i = 0; i < count; i++) {
      const waiter = waiters[i];
      if (waiter >= 0) this.#options.onCopied(waiter);
      else this.#options.onWritten(-1 - waiter);
    }
  }
}
