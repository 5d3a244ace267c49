/**
 * A journal's commits on a reactor's ring.
 *
 * ```
 *   entries appended ── NOP: the batch at hand ends ──▶ seal
 *        [fdatasync touched store …] ─link─▶ write sectors, DSYNC           the same to the mirror
 *                                                   │ all have ended
 *                     onCommitted ◀─────────────────┘   what came meanwhile is next
 * ```
 *
 * A write with DSYNC ends when its bytes are on the medium with all that is needed to find them, as fdatasync
 * would; what was committed before is there already. Stores that a commit tells nothing of are not synced.
 *
 * A commit that io_uring had no memory or thread for is submitted once more, to the same places, within its bound:
 * see commit-outcome.ts.
 *
 * A mirror is the journal's successor while its checkpoint is being written: every commit goes to
 * both, until adopt(). Which of them would be found after a power cut is not known here, so a commit
 * that is not on both has failed. So has one that the medium does not answer in time: it is told so, and
 * memory and files stay until the answer comes.
 *
 * A compaction makes the checkpoint of a mirror's log itself: each commit begins with some of it, and where
 * nothing else is to be committed it continues alone. It never takes room that the commits need.
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
/** Some file systems would sync in the call that submits it; the reactor must not wait for a medium. */
const APART_FILE = SqeFlag.FIXED_FILE | SqeFlag.ASYNC;

export interface JournalIoOptions {
  readonly reactor: Reactor;
  readonly setup: JournalSetup;
  readonly entriesMax: number;
  /** Sees to it that tick() is called; without it commits have no bound. */
  readonly ticker?: Pick<IoTicker, "start"> | undefined;
  /** Descriptors that are synced before a commit for which touch() was called with their place. */
  readonly syncFirst: readonly number[];
  /** The sealed commit is on the medium; its entries can still be read from the writer. */
  readonly onCommitted: (writer: JournalWriter) => void;
  /** The commit failed; nothing is committed any more. */
  readonly onFault: (errno: number) => void;
  /** The log is half full, or full. */
  readonly onLow: (need: LogNeed) => void;
  /** Of a journal that can be compacted. */
  readonly prefixEntriesMax?: number;
}

export class JournalIo {
  readonly writer: JournalWriter;
  readonly #options: JournalIoOptions;
  readonly #reactor: Reactor;
  readonly #memory: MappedMemory;
  readonly #handler: number;
  readonly #stores: StoreSyncs;
  /** Kept free until a mirror is there, so that a full log still takes what was being filled. */
  readonly #reserveSectors: number;
  readonly #prefixSectors: number;
  #log: LogFile;
  #mirror: LogFile | undefined;
  #compaction: Compaction | undefined;
  readonly #life = new JournalLife();
  /** Completions to come: of the commit on its way, or of the NOP. */
  #pending = 0;
  readonly #outcome = new CommitOutcome();
  /** Until the commit is submitted once more. */
  #pause: Timer | undefined;
  /** What was asked for since a log became longer, or another one. */
  #asked: LogNeed | undefined;
  #onIdle: (() => void) | undefined;
  /** Ticks since entries wait. */
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

  /** True while entries are appended that are not committed, or a commit is on its way. */
  get isBusy(): boolean {
    return this.writer.isCommitting || this.writer.fillingEntries > 0;
  }

  /** The commit being filled tells of data that was written to this place of `syncFirst`. */
  touch(place: number): void {
    this.#stores.touch(place);
  }

  /** After append(): commits as soon as the batch at hand is over. */
  commitSoon(): void {
    if (!this.#life.is(JournalState.IDLE)) return;
    this.#life.enter(JournalState.SOON);
    this.#pending = 1;
    prepareNop(this.#reactor.ring, NOP_DATA, this.#handler, 0);
  }

  /**
   * From the next commit on everything goes to the mirror too. Only while idle. Answers the sequence
   * number of the first sector there, or null when the journal has failed.
   * @param compaction puts into the mirror's log what was in the journal before
   */
  mirror(location: LogLocation, compaction?: Compaction): number | null {
    if (this.#life.isOver) return null;
    assert(!this.writer.isCommitting, "a mirror begins between two commits");
    this.dropMirror();
    this.#mirror = new LogFile(this.#reactor, location);
    this.#compaction = compaction;
    const firstSequence = this.writer.nextSequence >>> 0;
    if (compaction === undefined) this.#goOnIfFull();
    else this.#goOn();
    return firstSequence;
  }

  /** The mirror takes the journal's place. Only while idle. False when the journal has failed. */
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
    this.#goOn();
    return true;
  }

  /** Not while something is late: what is next in its chain would meet the file that has its place by then. */
  dropMirror(): void {
    if (this.#pending > 0 && !this.#life.is(JournalState.SOON)) return;
    if (this.#mirror !== undefined) this.#reactor.removeFile(this.#mirror.index);
    this.#mirror = undefined;
    this.#compaction = undefined;
  }

  /** The log in this file has become longer: that of the journal, or of its mirror. */
  grown(fd: number, logBytes: number): void {
    const file = [this.#log, this.#mirror].find((one) => one?.fd === fd);
    if (file === undefined) return;
    file.logSectors = logBytes / SECTOR_BYTES;
    this.#goOn();
  }

  /** Calls back when no commit is on its way. */
  whenIdle(callback: () => void): void {
    if (!this.#life.is(JournalState.COMMITTING)) {
      callback();
      return;
    }
    assert(this.#onIdle === undefined, "two wait for the same journal");
    this.#onIdle = callback;
  }

  /** Time passes; see IoTicker. True while something waits for the medium, or for room in the log. */
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

  /** After close(): calls back when the medium has answered all that it was asked. */
  whenClosed(callback: () => void): void {
    if (this.#life.is(JournalState.CLOSED)) callback();
    else this.#onClosed = callback;
  }

  /** Ends it at once; the end of a commit that is on its way is not reported any more. */
  close(): void {
    if (this.#life.isClosing) return;
    this.#life.enter(JournalState.CLOSING);
    if (this.#pending === 0) this.#cleanUp();
  }

  /** The kernel has given everything back: until now memory and files stayed. */
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

  #goOn(): void {
    this.#asked = undefined;
    this.#goOnIfFull();
    if (this.#compaction?.isPending === true) this.commitSoon();
  }

  #goOnIfFull(): void {
    if (!this.#life.is(JournalState.FULL)) return;
    this.#life.enter(JournalState.IDLE);
    this.#begin();
  }

  /** Seals and submits what there is. Only while idle. */
  #begin(): void {
    const { writer } = this;
    const compaction = this.#compaction;
    if (compaction?.isPending === true && this.#hasRoomForPrefix()) {
      compaction.prepend(writer);
      // It found nothing yet in what it may look at in one turn.
      if (compaction.isPending && writer.sectorsToSeal === 0) this.commitSoon();
    }
    const sectors = writer.sectorsToSeal;
    if (sectors === 0) return;
    this.#waitedTicks = 0;
    this.#options.ticker?.start();
    if (!this.#hasRoom(sectors)) {
      this.#life.enter(JournalState.FULL);
      this.#tellLow();
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
      // It may have the journal's name by now: it must not know of data that is not there either.
      this.#pending += this.#submit(this.#mirror, MIRROR_DATA);
    }
  }

  #hasRoom(sectors: number): boolean {
    const mirror = this.#mirror;
    const reserve = this.#reserveSectors;
    if (mirror === undefined) return hasRoom(this.#log, sectors + reserve);
    return hasRoom(this.#log, sectors) && hasRoom(mirror, sectors + reserve);
  }

  /** With the largest commit behind it, and one more, there is still room. */
  #hasRoomForPrefix(): boolean {
    const mirror = this.#mirror;
    const sectors = this.#prefixSectors + 2 * this.#reserveSectors;
    const room = mirror !== undefined && hasRoom(this.#log, sectors) && hasRoom(mirror, sectors);
    if (!room) this.#tellIfLow();
    return room;
  }

  /** Prepares one chain. Answers how many completions it has. */
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
      // A commit that was late has been given up.
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
    const waiting = this.#onIdle;
    this.#onIdle = undefined;
    this.#options.onFault(errno);
    waiting?.();
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
    this.#tellIfLow();
    const idle = this.#onIdle;
    this.#onIdle = undefined;
    idle?.();
    // The callbacks may have begun, or ended, something.
    if (this.#life.is(JournalState.IDLE)) this.#begin();
  }

  #submitLater(): void {
    this.#pause = this.#reactor.setTimer(TRIES_PAUSE_MS, () => {
      this.#pause = undefined;
      // It may have been given up meanwhile.
      if (this.#life.is(JournalState.COMMITTING)) this.#submitAll();
    });
  }

  #tellIfLow(): void {
    if (this.#asked !== undefined) return;
    const isLow =
      this.#compaction !== undefined ? this.#lowOf() !== undefined : isHalfFull(this.#log);
    if (isLow) this.#tellLow();
  }

  #tellLow(): void {
    if (this.#asked !== undefined) return;
    const isRenewed = this.#prefixSectors === 0 || isWorthRenewal(this.#log);
    this.#asked = this.#lowOf() ?? (isRenewed ? "renewal" : "log");
    this.#options.onLow(this.#asked);
  }

  /** The log that should become longer while a checkpoint is put into the mirror's. */
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
