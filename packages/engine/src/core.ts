/**
 * The state that all parts of an engine share, and where requests wait.
 *
 *     ready       may continue now; drained at the end of every event
 *     held        write-like front requests held back by hold()
 *     on a copy   needs a block that another request is copying
 *     copyWaiters no free copy      runWaiters  no free run      slotWaiters  no free slot
 *     blocked     no room, and the overflow policy is to wait for it
 *     sliceWaiters  overlaps the slice of kept-back discards that is in flight
 *
 * Why nothing waits without end. A request waits on a copy, a pool or a slot only when it has no copy and no run in
 * flight. A copy or run in flight only needs its I/O to end, or its bound to pass (io-state.ts): a store with late I/O
 * gets no more, so I/O that is still due on a slot never meets later I/O there. The host always answers a request for
 * slots, with a grant or a denial. Blocked requests hold nothing that another needs, and the host's ticks end their
 * wait. The only thing kept while waiting is a run, reserved by an image write that lacks a copy; runs are always taken
 * before copies, and copies never wait for runs, so there is no cycle.
 *
 * Why no request starves. The queues are first-in first-out; while a request waits for a pool, newcomers queue up
 * behind it even if an entry is free (`serving` lets only the woken request pass).
 */
import type { CbtMap } from "./cbt-map.js";
import { EIO, ENOSPC } from "./constants.js";
import { CopiesBehind } from "./copies-behind.js";
import { CopyTable } from "./copy-table.js";
import type { DiffArea } from "./diff-area.js";
import { type DiffAreaMap, NO_SLOT } from "./diff-area-map.js";
import { DiscardWatch } from "./discard-watch.js";
import type { Geometry } from "./geometry.js";
import type { EngineIo } from "./io.js";
import { IoStage } from "./io-state.js";
import { KeptDiscards } from "./kept-discards.js";
import { KeptSlice } from "./kept-slice.js";
import { LostSlots } from "./lost-slots.js";
import { NONE, RequestQueue } from "./request-queue.js";
import { RequestState, RequestTable } from "./request-table.js";
import { RunTable } from "./run-table.js";
import { NO_FREE_SLOT } from "./slot-pool.js";
import { EngineStats, Stat } from "./stats.js";
import { WriteStreams } from "./write-streams.js";

export const AreaPhase = {
  NONE: 0,
  /** Attached, before the take: nothing is copied. */
  PREPARED: 1,
  ACTIVE: 2,
  /** Dropped, waiting for what is in flight. */
  CLOSING: 3,
} as const;

/** Why a pass over a request stopped. Functions that return these return values >= 0 otherwise. */
export const Stop = {
  COPY: -2,
  COPY_POOL: -3,
  RUN_POOL: -4,
  SLOTS: -5,
  WINDOW: -6,
  ERROR: -7,
  SLOTS_DENIED: -8,
  /** Copies or runs of its own have to end first. */
  OWN: -9,
  /** No room: wait for it. */
  BLOCKED: -10,
  /** A slice of kept-back discards is in flight to the same range. */
  SLICE: -11,
  /** The slot's store hangs, or all stores do. */
  STORE_HUNG: -12,
} as const;

export const Serving = { NOBODY: 0, COPY_WAITER: 1, RUN_WAITER: 2 } as const;

export interface EngineOptions {
  /** Tags of the front queue and of the image queue. */
  frontDepth: number;
  imageDepth: number;
  /**
   * Copy window of each front tag: at least the largest WRITE rounded out to blocks, plus two blocks, so that a write
   * needs one round of copies. An image tag has a copy window of two blocks.
   */
  copyWindowBytes: number;
  /** Copies and runs that may be in flight. */
  copiesMax: number;
  runsMax: number;
  /** Calls of tick() after which the store's part of a copy or run is late; 7 if not given. */
  lateTicks?: number;
  /**
   * True: discards of blocks that a snapshot still needs are answered and forgotten. By the time they could be issued,
   * the original may have been written to past the front.
   */
  forgetsDiscards?: boolean;
  cbt: CbtMap;
}

const LATE_TICKS = 7;

export class EngineCore {
  geometry: Geometry;
  readonly io: EngineIo;
  readonly front: RequestTable;
  readonly image: RequestTable;
  readonly copies: CopyTable;
  readonly behind: CopiesBehind = new CopiesBehind(this);
  readonly runs: RunTable;
  cbt: CbtMap;
  readonly discardWatch: DiscardWatch;
  kept: KeptDiscards;
  readonly slice: KeptSlice = new KeptSlice();
  readonly streams: WriteStreams;
  readonly stats: EngineStats = new EngineStats();
  readonly counters: Float64Array = this.stats.values;
  readonly windowBlocks: number;

  readonly links: Int32Array;
  readonly ready: RequestQueue;
  readonly held: RequestQueue;
  readonly copyWaiters: RequestQueue;
  readonly runWaiters: RequestQueue;
  readonly slotWaiters: RequestQueue;
  readonly blocked: RequestQueue;
  readonly sliceWaiters: RequestQueue;

  phase: number = AreaPhase.NONE;
  area: DiffArea | null = null;
  holding: boolean = false;
  drainReported: boolean = false;
  inflightWrites: number = 0;
  serving: number = Serving.NOBODY;
  /** The copy that stopped a pass with Stop.COPY. */
  stopCopy: number = NONE;
  /** Searches for chunks whose slots were lost, one per store. */
  lostSlots: LostSlots[] = [];
  /** Ticks of waiting writes; 0 means "never" in RequestTable.blockedSince. */
  ticks: number = 1;
  /** The cause of the last Stop.SLOTS_DENIED: a positive errno. */
  deniedErrno: number = 0;
  /** Ticks of I/O. */
  ioTicks: number = 0;
  private readonly lateTicks: number;
  readonly forgetsDiscards: boolean;

  constructor(geometry: Geometry, io: EngineIo, options: EngineOptions) {
    this.geometry = geometry;
    this.io = io;
    this.cbt = options.cbt;
    this.lateTicks = options.lateTicks ?? LATE_TICKS;
    this.forgetsDiscards = options.forgetsDiscards ?? false;
    this.front = new RequestTable(options.frontDepth);
    this.image = new RequestTable(options.imageDepth);
    this.discardWatch = new DiscardWatch(this.front, this.cbt);
    this.kept = new KeptDiscards(geometry);
    this.streams = new WriteStreams(geometry.blockShift);
    this.copies = new CopyTable(options.copiesMax);
    this.runs = new RunTable(options.runsMax);
    this.windowBlocks = options.copyWindowBytes >> geometry.blockShift;
    this.links = new Int32Array(options.frontDepth + options.imageDepth).fill(NONE);
    this.ready = new RequestQueue(this.links);
    this.held = new RequestQueue(this.links);
    this.copyWaiters = new RequestQueue(this.links);
    this.runWaiters = new RequestQueue(this.links);
    this.slotWaiters = new RequestQueue(this.links);
    this.blocked = new RequestQueue(this.links);
    this.sliceWaiters = new RequestQueue(this.links);
  }

  /** See TrackerEngine.grow(). */
  resize(geometry: Geometry, cbt: CbtMap): void {
    this.geometry = geometry;
    this.cbt = cbt;
    this.discardWatch.cbt = cbt;
    this.kept = new KeptDiscards(geometry);
  }

  /** The map of the active area. */
  activeMap(): DiffAreaMap {
    return this.area!.map;
  }

  /** Queues a request for what stopped it. The request must have nothing in flight. */
  park(id: number, stop: number): void {
    this.counters[Stat.WAITS]++;
    this.setState(id, RequestState.PARKED);
    if (stop === Stop.COPY) this.parkOnCopy(id, this.stopCopy);
    else if (stop === Stop.COPY_POOL) this.copyWaiters.push(id);
    else if (stop === Stop.RUN_POOL) this.runWaiters.push(id);
    else if (stop === Stop.BLOCKED) this.block(id);
    else if (stop === Stop.SLICE) this.sliceWaiters.push(id);
    else this.slotWaiters.push(id);
  }

  /** Lets a request continue at the end of the present event. */
  wake(id: number): void {
    this.setState(id, RequestState.ACTIVE);
    this.ready.push(id);
  }

  /** True if no request waits to continue, for a free copy, or for a free run. */
  hasNoWaiters(): boolean {
    const { ready, copyWaiters, runWaiters } = this;
    return ready.isEmpty() && copyWaiters.isEmpty() && runWaiters.isEmpty();
  }

  /** Lets all requests that wait on this copy continue. */
  wakeWaiters(copy: number): void {
    this.ready.append(this.copies.waitersHead[copy], this.copies.waitersTail[copy]);
    this.copies.waitersHead[copy] = NONE;
    this.copies.waitersTail[copy] = NONE;
  }

  setState(id: number, state: number): void {
    const { front, image } = this;
    if (id < front.depth) front.state[id] = state;
    else image.state[id - front.depth] = state;
  }

  mayAcquireCopy(): boolean {
    return (
      this.copies.freeCount > 0 &&
      (this.copyWaiters.isEmpty() || this.serving === Serving.COPY_WAITER)
    );
  }

  mayAcquireRun(): boolean {
    return (
      this.runs.freeCount > 0 && (this.runWaiters.isEmpty() || this.serving === Serving.RUN_WAITER)
    );
  }

  /** Slot of the chunk, allocated now if it has none; or Stop.SLOTS, Stop.SLOTS_DENIED or Stop.STORE_HUNG. */
  slotFor(chunk: number): number {
    const area = this.area!;
    this.checkLosses(chunk);
    const present = area.map.slotOf(chunk);
    if (present !== NO_SLOT) return area.isHung(present) ? Stop.STORE_HUNG : present;
    const stop = this.memoryFor(chunk);
    if (stop !== 0) return stop;
    const slot = area.slots.acquire(area.hungStores);
    if (slot === NO_FREE_SLOT) {
      if (area.isAllHung) return Stop.STORE_HUNG;
      if (area.slots.deniedErrno !== 0) {
        this.deniedErrno = area.slots.deniedErrno;
        return Stop.SLOTS_DENIED;
      }
      this.askForSlots();
      return Stop.SLOTS;
    }
    area.map.setSlot(chunk, slot);
    this.counters[Stat.SLOTS_TAKEN]++;
    this.askForSlots();
    return slot;
  }

  /**
   * Whether the map can record anything about the chunk: 0, or Stop.SLOTS or Stop.SLOTS_DENIED. A denial answers an
   * earlier question; the next question is asked at once.
   */
  memoryFor(chunk: number): number {
    const { map, memory } = this.area!;
    if (map.hasMemory(chunk)) return 0;
    const slice = map.slices.of(chunk);
    if (map.slices.isLost(slice)) {
      this.deniedErrno = map.faultErrno || ENOSPC;
      return Stop.SLOTS_DENIED;
    }
    if (memory.mayAsk(slice)) this.io.requestMapSlice(slice);
    this.deniedErrno = memory.deniedErrno(slice);
    return this.deniedErrno === 0 ? Stop.SLOTS : Stop.SLOTS_DENIED;
  }

  /** Asks the host for slots if few are left, unless an answer is awaited or the last one was a denial. */
  askForSlots(): void {
    const { slots, lowWaterSlots, wantedSlots, hungStores } = this.area!;
    if (slots.asked || slots.deniedErrno !== 0) return;
    if (slots.countOutside(hungStores) > lowWaterSlots) return;
    slots.asked = true;
    this.io.requestSlots(wantedSlots);
  }

  /** Records blocks [from, to) as lost, and notifies the host the first time. */
  lose(chunk: number, from: number, to: number, errno: number): void {
    const map = this.activeMap();
    this.counters[Stat.LOST_BLOCKS] += map.setLost(chunk, from, to);
    if (map.faultErrno !== 0) return;
    map.setFaultErrno(errno);
    this.io.onAreaFault(errno);
  }

  /** From now on the content of these slots, all of one store, is lost. */
  loseSlots(firstSlot: number, lastSlot: number): void {
    const isOther = (one: LostSlots): boolean => !one.has(lastSlot);
    const before = this.lostSlots.find((one) => !isOther(one));
    // An earlier search does not return to chunks that were saved since it passed them.
    const first = Math.min(firstSlot, before?.firstSlot ?? firstSlot);
    const lost = new LostSlots(this.activeMap(), first, lastSlot, (chunk, from, to) =>
      this.lose(chunk, from, to, EIO),
    );
    this.lostSlots = [...this.lostSlots.filter(isOther), lost];
    this.copies.setStale(first, lastSlot);
    this.runs.setStale(first, lastSlot);
  }

  /** Counts what was lost with the chunk's slot as lost. Call it before relying on the chunk's content. */
  checkLosses(chunk: number): void {
    for (let i = 0; i < this.lostSlots.length; i++) this.lostSlots[i].check(chunk);
  }

  /** True if the present stage of a live copy or run has passed its bound. */
  isLate(since: number, stage: number): boolean {
    if (this.ioTicks - since <= this.lateTicks) return false;
    return stage === IoStage.STORING || this.phase === AreaPhase.CLOSING;
  }

  /** I/O of the slot is late: its store gets no more I/O until that is answered. */
  noteLate(slot: number): void {
    this.counters[Stat.LATE_IO]++;
    if (this.phase !== AreaPhase.ACTIVE) return;
    const store = this.area!.noteLate(slot);
    if (store >= 0) this.io.onStoreHung(store);
  }

  /** Late I/O of the slot was answered. */
  noteAnswered(slot: number): void {
    const area = this.area!;
    const store = area.noteAnswered(slot);
    if (store < 0) return;
    this.io.onStoreAnswered(store);
    if (area.slots.deniedErrno === 0) area.gaveUp = false;
    this.unblock();
  }

  /** Lets all blocked writes try again. */
  unblock(): void {
    this.ready.appendAll(this.blocked);
    this.area!.blockedWrites = 0;
  }

  private block(tag: number): void {
    const { front, area } = this;
    if (front.blockedSince[tag] === 0) {
      front.blockedSince[tag] = this.ticks;
      this.counters[Stat.BLOCKED_WRITES]++;
    }
    this.blocked.push(tag);
    area!.blockedWrites++;
    if (area!.blockedWrites === 1) this.io.onWritesBlocked();
  }

  private parkOnCopy(id: number, copy: number): void {
    const { waitersHead, waitersTail } = this.copies;
    this.links[id] = NONE;
    if (waitersHead[copy] === NONE) waitersHead[copy] = id;
    else this.links[waitersTail[copy]] = id;
    waitersTail[copy] = id;
  }
}
