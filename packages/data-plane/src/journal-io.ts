/**
 * A journal's commits on a reactor's ring.
 *
 * ```
 *   entries appended ── NOP: the current batch ends ──▶ seal
 *        [fdatasync touched store …] ─link─▶ write sectors, DSYNC           the same to the mirror
 *                                                   │ all have ended
 *                     onCommitted ◀─────────────────┘   entries appended meanwhile are next
 * ```
 *
 * A write with DSYNC ends when its bytes are on the medium with everything that is needed to find them, as after
 * fdatasync; earlier commits are there already. Stores whose data a commit does not refer to are not synced.
 *
 * A commit for which io_uring had no memory or thread is submitted again, to the same sectors, within its bound: see
 * commit-outcome.ts.
 *
 * A mirror is the journal's successor while its checkpoint is being written: until adopt(), every commit goes to both.
 * Which of them a power cut would leave is not known here, so a commit that is not on both has failed. So has one that
 * the medium does not answer in time: it is reported as failed, and memory and files stay until the answer comes.
 *
 * A compaction puts the checkpoint into the mirror's log itself: each commit begins with a part of it, and if nothing
 * else is to be committed it continues alone. It never takes room that the commits need.
 */
import { ETIMEDOUT } from "@blksnap/errors";
import { ENTRIES_PER_SECTOR, JournalWriter, SECTOR_BYTES, writerBytes } from "@blksnap/journal";
import { TRIES_PAUSE_MS } from "@blksnap/ublk";
import {
  assert,
  high32,
  low32,
  MappedMemory,
  prepareNop,
  prepareWrite,
  type Reactor,
  RwFlag,
  SqeFlag,
  type Timer,
} from "@blksnap/uring";
import { Again, CommitOutcome } from "./commit-outcome.js";
import { COMMIT_LATE_TICKS, type IoTicker } from "./io-ticker.js";
import { JournalLife, JournalState } from "./journal-state.js";
import {
  type Compaction,
  hasRoom,
  isHalfFull,
  isWorthRenewal,
  type JournalSetup,
  LogFile,
  type LogLocation,
  type LogNeed,
} from "./log-file.js";
import { StoreSyncs } from "./store-syncs.js";

export type { Compaction, JournalSetup, LogLocation, LogNeed };

const NOP_DATA = 0;
const MIRROR_DATA = 64;
/** Some file systems would sync in the system call that submits it, and the reactor must not wait for a medium. */
const APART_FILE = SqeFlag.FIXED_FILE | SqeFlag.ASYNC;

export interface JournalIoOptions {
  readonly reactor: Reactor;
  readonly setup: JournalSetup;
  readonly entriesMax: number;
  /** Makes sure that tick() is called; without it commits have no bound. */
  readonly ticker?: Pick<IoTicker, "start"> | undefined;
  /** Descriptors to sync before a commit, if touch() was called with their index. */
  readonly syncFirst: readonly number[];
  /** The sealed commit is on the medium; its entries can still be read from the writer. */
  readonly onCommitted: (writer: JournalWriter) => void;
  /** The commit failed; nothing is committed any more. */
  readonly onFault: (errno: number) => void;
  /** The log is half full, or full. */
  readonly onLow: (need: LogNeed) => void;
  /** Only for a journal that can be compacted. */
  readonly prefixEntriesMax?: number;
}

export class JournalIo {
  readonly writer: JournalWriter;
  readonly #options: JournalIoOptions;
  readonly #reactor: Reactor;
  readonly #memory: MappedMemory;
  readonly #handler: number;
  readonly #stores: StoreSyncs;
  /** Kept free until there is a mirror, so that a full log still accepts the entries being filled. */
  readonly #reserveSectors: number;
  readonly #prefixSectors: number;
  #log: LogFile;
  #mirror: LogFile | undefined;
  #compaction: Compaction | undefined;
  readonly #life = new JournalLife();
  /** Completions to come: of the commit in flight, or of the NOP. */
  #pending = 0;
  readonly #outcome = new CommitOutcome();
  /** The pause before the commit is submitted again. */
  #pause: Timer | undefined;
  /** The last call of onLow, until a log becomes longer, or is replaced. */
  #asked: LogNeed | undefined;
  #onIdle: (() => void) | undefined;
  /** Ticks for which entries have waited. */
  #waitedTicks = 0;
  #onClosed: (() => void) | undefined;

  constructor(options: JournalIoOptions) {
    const { reactor, setup, entriesMax, prefixEntriesMax = 0 } = options;
    this.#options = options;
    this.#reactor = reactor;
    this.#memory = MappedMemory.anonymous(writerBytes(entriesMax, prefixEntriesMax));
    reactor.noteTaken(() => this.#memory.unmap());
    this.writer = new JournalWriter({
      buffer: this.#memory.buffer,
      id: Uint8Array.from(setup.id),
      entriesMax,
      prefixEntriesMax,
      nextSequence: setup.nextSequence,
      nextCommit: setup.nextCommit,
    });
    this.#log = new LogFile(reactor, setup);
    this.#reserveSectors = Math.ceil(entriesMax / ENTRIES_PER_SECTOR);
    this.#prefixSectors = Math.ceil(prefixEntriesMax / ENTRIES_PER_SECTOR);
    this.#stores = new StoreSyncs(reactor, options.syncFirst);
    assert(this.#stores.count < MIRROR_DATA - 1, "too many stores for a commit");
    this.#handler = reactor.addHandler({
      onCompletion: (data, result) => this.#onCompletion(data, result),
    });
  }

  /** True while entries are not committed, or a commit is in flight. */
  get isBusy(): boolean {
    return this.writer.isCommitting || this.writer.fillingEntries > 0;
  }

  /** The commit being filled refers to data written to this store of `syncFirst`. */
  touch(place: number): void {
    this.#stores.touch(place);
  }

  /** Call it after append(): commits when the current batch is over. */
  commitSoon(): void {
    if (!this.#life.is(JournalState.IDLE)) return;
    this.#life.enter(JournalState.SOON);
    this.#pending = 1;
    prepareNop(this.#reactor.ring, NOP_DATA, this.#handler, 0);
  }

  /**
   * Mirrors all commits from the next one on. Only while idle. Returns the sequence number of the first sector there,
   * or null if the journal has failed.
   * @param compaction puts the journal's content so far into the mirror's log
   */
  mirror(location: LogLocation, compaction?: Compaction): number | null {
    if (this.#life.isOver) return null;
    assert(!this.writer.isCommitting, "a mirror begins between two commits");
    this.dropMirror();
    this.#mirror = new LogFile(this.#reactor, location);
    this.#compaction = compaction;
    const firstSequence = this.writer.nextSequence >>> 0;
    if (compaction === undefined) this.#continueIfFull();
    else this.#continueCommits();
    return firstSequence;
  }

  /** The mirror takes the journal's place. Only while idle. False if the journal has failed. */
  adopt(): boolean {
    const mirror = this.#mirror;
    if (mirror === undefined || this.#life.isOver) {
      this.dropMirror();
      return false;
    }
    assert(!this.writer.isCommitting, "a mirror is adopted between two commits");
    this.#reactor.removeFile(this.#log.index);
    mirror.baseSectors = mirror.usedSectors;
    this.#log = mirror;
    this.#mirror = undefined;
    this.#compaction = undefined;
    this.#continueCommits();
    return true;
  }

  /** Does nothing while I/O is late: later entries of its chain could hit a file that has reused the index. */
  dropMirror(): void {
    if (this.#pending > 0 && !this.#life.is(JournalState.SOON)) return;
    if (this.#mirror !== undefined) this.#reactor.removeFile(this.#mirror.index);
    this.#mirror = undefined;
    this.#compaction = undefined;
  }

  /** The log in this file, the journal's or its mirror's, has become longer. */
  grown(fd: number, logBytes: number): void {
    const file = [this.#log, this.#mirror].find((one) => one?.fd === fd);
    if (file === undefined) return;
    file.logSectors = logBytes / SECTOR_BYTES;
    this.#continueCommits();
  }

  /** Calls back when no commit is in flight, or the journal has ended. */
  whenIdle(callback: () => void): void {
    if (!this.#life.is(JournalState.COMMITTING)) {
      callback();
      return;
    }
    assert(this.#onIdle === undefined, "two wait for the same journal");
    this.#onIdle = callback;
  }

  /** See IoTicker. Returns true while entries wait for the medium, or for room in the log. */
  tick(): boolean {
    const isFull = this.#life.is(JournalState.FULL);
    const waitsForRoom = isFull && this.writer.fillingEntries > 0;
    if (!waitsForRoom && !this.#life.is(JournalState.COMMITTING)) {
      this.#waitedTicks = 0;
      return false;
    }
    this.#waitedTicks++;
    if (this.#waitedTicks > COMMIT_LATE_TICKS) this.#fail(ETIMEDOUT);
    return !this.#life.isOver;
  }

  /** After close(): calls back when the medium has answered everything. */
  whenClosed(callback: () => void): void {
    if (this.#life.is(JournalState.CLOSED)) callback();
    else this.#onClosed = callback;
  }

  /** Ends it at once; the end of a commit in flight is not reported. */
  close(): void {
    if (this.#life.isClosing) return;
    this.#life.enter(JournalState.CLOSING);
    if (this.#pending === 0) this.#cleanUp();
    this.#notifyIdle();
  }

  /** The kernel has answered everything: frees memory and files, which had to stay until now. */
  #cleanUp(): void {
    this.#life.enter(JournalState.CLOSED);
    if (this.#pause !== undefined) this.#reactor.cancelTimer(this.#pause);
    this.dropMirror();
    this.#reactor.removeFile(this.#log.index);
    this.#stores.close();
    this.#reactor.removeHandler(this.#handler);
    this.#memory.unmap();
    this.#onClosed?.();
  }

  #continueCommits(): void {
    this.#asked = undefined;
    this.#continueIfFull();
    if (this.#compaction?.isPending === true) this.commitSoon();
  }

  #continueIfFull(): void {
    if (!this.#life.is(JournalState.FULL)) return;
    this.#life.enter(JournalState.IDLE);
    this.#begin();
  }

  /** Seals and submits the entries. Only while idle. */
  #begin(): void {
    const { writer } = this;
    const compaction = this.#compaction;
    if (compaction?.isPending === true && this.#hasRoomForPrefix()) {
      compaction.prepend(writer);
      // Within this turn's units it found nothing to write yet.
      if (compaction.isPending && writer.sectorsToSeal === 0) this.commitSoon();
    }
    const sectors = writer.sectorsToSeal;
    if (sectors === 0) return;
    this.#waitedTicks = 0;
    this.#options.ticker?.start();
    if (!this.#hasRoom(sectors)) {
      this.#life.enter(JournalState.FULL);
      this.#reportLow();
      return;
    }
    this.#life.enter(JournalState.COMMITTING);
    writer.seal();
    this.#stores.seal();
    this.#outcome.begin();
    this.#submitAll();
  }

  #submitAll(): void {
    this.#outcome.submitted();
    this.#pending = this.#submit(this.#log, 1);
    if (this.#mirror !== undefined) {
      // It may have the journal's name by now, so it must not refer to data that is not there either.
      this.#pending += this.#submit(this.#mirror, MIRROR_DATA);
    }
  }

  #hasRoom(sectors: number): boolean {
    const mirror = this.#mirror;
    const reserve = this.#reserveSectors;
    if (mirror === undefined) return hasRoom(this.#log, sectors + reserve);
    return hasRoom(this.#log, sectors) && hasRoom(mirror, sectors + reserve);
  }

  /** True if there is still room after the largest commit and one more. */
  #hasRoomForPrefix(): boolean {
    const mirror = this.#mirror;
    const sectors = this.#prefixSectors + 2 * this.#reserveSectors;
    const room = mirror !== undefined && hasRoom(this.#log, sectors) && hasRoom(mirror, sectors);
    if (!room) this.#reportIfLow();
    return room;
  }

  /** Prepares one chain. Returns how many completions it has. */
  #submit(file: LogFile, firstData: number): number {
    const { writer } = this;
    const { count } = this.#stores;
    const ring = this.#reactor.ring;
    const address = this.#memory.address + writer.sealedOffsetBytes;
    const length = writer.sealedSectors * SECTOR_BYTES;
    const offset = file.logOffsetBytes + file.usedSectors * SECTOR_BYTES;
    ring.reserve(count + 1);
    const syncs = this.#stores.prepare(firstData, this.#handler);
    prepareWrite(
      ring,
      file.index,
      low32(address),
      high32(address),
      length,
      low32(offset),
      high32(offset),
      RwFlag.DSYNC,
      firstData + count,
      this.#handler,
      APART_FILE,
    );
    return syncs + 1;
  }

  #onCompletion(data: number, result: number): void {
    this.#pending--;
    if (this.#life.isOver) {
      // A late commit has been given up.
      if (this.#life.isClosing && this.#pending === 0) this.#cleanUp();
    } else if (data === NOP_DATA) {
      this.#life.enter(JournalState.IDLE);
      this.#begin();
    } else {
      const syncs = this.#stores.count;
      const isWrite = data === MIRROR_DATA + syncs || data === 1 + syncs;
      this.#outcome.note(result, isWrite ? this.writer.sealedSectors * SECTOR_BYTES : 0);
      if (this.#pending === 0) this.#ended();
    }
  }

  #fail(errno: number): void {
    this.#life.enter(JournalState.FAILED);
    this.#options.onFault(errno);
    this.#notifyIdle();
  }

  #ended(): void {
    const { writer } = this;
    const again = this.#outcome.again();
    if (again === Again.AT_ONCE) this.#submitAll();
    else if (again === Again.LATER) this.#submitLater();
    if (again !== Again.NEVER) return;
    if (this.#outcome.errno !== 0) {
      this.#fail(this.#outcome.errno);
      return;
    }
    this.#log.usedSectors += writer.sealedSectors;
    if (this.#mirror !== undefined) this.#mirror.usedSectors += writer.sealedSectors;
    this.#options.onCommitted(writer);
    if (this.#life.isOver) return;
    writer.complete();
    this.#life.enter(JournalState.IDLE);
    this.#reportIfLow();
    try {
      this.#notifyIdle();
    } finally {
      // The callbacks may have begun, or ended, a commit.
      if (this.#life.is(JournalState.IDLE)) this.#begin();
    }
  }

  #notifyIdle(): void {
    const onIdle = this.#onIdle;
    this.#onIdle = undefined;
    onIdle?.();
  }

  #submitLater(): void {
    this.#pause = this.#reactor.setTimer(TRIES_PAUSE_MS, () => {
      this.#pause = undefined;
      // It may have been given up meanwhile.
      if (this.#life.is(JournalState.COMMITTING)) this.#submitAll();
    });
  }

  #reportIfLow(): void {
    if (this.#asked !== undefined) return;
    const isLow =
      this.#compaction !== undefined ? this.#lowOf() !== undefined : isHalfFull(this.#log);
    if (isLow) this.#reportLow();
  }

  #reportLow(): void {
    if (this.#asked !== undefined) return;
    const isRenewed = this.#prefixSectors === 0 || isWorthRenewal(this.#log);
    this.#asked = this.#lowOf() ?? (isRenewed ? "renewal" : "log");
    this.#options.onLow(this.#asked);
  }

  /** The log that should become longer during a compaction. */
  #lowOf(): LogNeed | undefined {
    if (this.#compaction === undefined) return undefined;
    const mirror = this.#mirror as LogFile;
    const { usedSectors, logSectors } = this.#log;
    const isScarce = (logSectors - usedSectors) * 4 < logSectors;
    const lessThan = 2 * (this.#prefixSectors + 2 * this.#reserveSectors);
    if (isScarce || !hasRoom(this.#log, lessThan)) return "log";
    if (isHalfFull(mirror) || !hasRoom(mirror, lessThan)) return "mirror";
    return undefined;
  }
}
