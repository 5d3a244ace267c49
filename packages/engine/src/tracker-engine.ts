/**
 * One tracked device: its front, its image, its CBT map, and its area while it is in a snapshot.
 *
 *     host                                 engine                                  host
 *     submitFront  --------------------->  +-----------+ --- submitOriginal -->    onOriginalDone
 *     submitImage  --------------------->  | state     | --- submitCopy ------>    onCopyDone
 *     hold, switchAndRelease, release -->  | machines  | --- submitRun ------->    onRunDone
 *                                          |           | --- submitKept ------>    onKeptDone
 *     attachArea, dropArea ------------->  +-----------+ --- requestSlots ---->    area.grantSlots
 *                                                |
 *                                                +--> completeFront, completeImage, onDrained, ...
 *
 * The engine belongs to one thread, never waits, and does no I/O. An event changes state and puts requests that may
 * continue into the queue `ready`; settle() then lets them continue one after the other, so events do not nest however
 * long the chain of waiters is. Nothing is allocated per request.
 *
 *     area    NONE --attachArea--> PREPARED --switchAndRelease--> ACTIVE
 *               ^                      |                             |
 *               +---- onAreaClosed --- CLOSING <------ dropArea -----+
 */
import { assert } from "./assert.js";
import type { CbtMap } from "./cbt-map.js";
import { CopyMode } from "./constants.js";
import { CopyPath } from "./copy-path.js";
import type { CopyTable } from "./copy-table.js";
import { AreaPhase, EngineCore, type EngineOptions, Serving } from "./core.js";
import type { AreaListener, DiffArea } from "./diff-area.js";
import { AreaState } from "./diff-area-map.js";
import { DiscardKeeper } from "./discard-keeper.js";
import { EngineError } from "./errors.js";
import { FrontPath } from "./front-path.js";
import { Geometry, type TrackerGeometry } from "./geometry.js";
import { ImagePath } from "./image-path.js";
import type { EngineIo } from "./io.js";
import { IoStage, IoState } from "./io-state.js";
import type { KeptSlice } from "./kept-slice.js";
import { NONE, type RequestQueue } from "./request-queue.js";
import { RequestState, type RequestTable } from "./request-table.js";
import type { RunTable } from "./run-table.js";
import type { EngineStats } from "./stats.js";

export class TrackerEngine implements AreaListener {
  geometry: Geometry;
  /** Requests of the front and of the image: fill in a tag's columns, then submit the tag. */
  readonly front: RequestTable;
  readonly image: RequestTable;
  readonly copies: CopyTable;
  readonly runs: RunTable;
  readonly stats: EngineStats;
  private readonly core: EngineCore;
  private readonly copyPath: CopyPath;
  private readonly keeper: DiscardKeeper;
  private readonly frontPath: FrontPath;
  private readonly imagePath: ImagePath;
  private settling: boolean = false;

  constructor(geometry: TrackerGeometry, io: EngineIo, options: EngineOptions) {
    this.geometry = new Geometry(geometry);
    if (options.cbt.capacityBytes !== this.geometry.capacityBytes) {
      throw new EngineError("MAP_GEOMETRY", "the CBT map is of a device of another size");
    }
    if (options.copyWindowBytes < this.geometry.blockBytes) {
      throw new EngineError("BAD_GEOMETRY", "the copy window is smaller than a block");
    }
    this.core = new EngineCore(this.geometry, io, options);
    this.front = this.core.front;
    this.image = this.core.image;
    this.copies = this.core.copies;
    this.runs = this.core.runs;
    this.stats = this.core.stats;
    this.copyPath = new CopyPath(this.core);
    this.keeper = new DiscardKeeper(this.core);
    this.frontPath = new FrontPath(this.core, this.copyPath, this.keeper);
    this.imagePath = new ImagePath(this.core, this.copyPath);
  }

  /**
   * The device has become larger: from now on requests reach all of it, and are marked in a map of that size. Only
   * while held and drained, without an area, and with no discards kept back; else nothing changes, and it throws
   * BAD_STATE. Cold.
   * @param geometry as before, but for the capacity
   */
  grow(geometry: TrackerGeometry, cbt: CbtMap): void {
    const { core } = this;
    const isStill = core.holding && core.inflightWrites === 0 && core.phase === AreaPhase.NONE;
    if (!isStill || core.kept.count > 0) {
      throw new EngineError("BAD_STATE", "a device grows only while nothing needs its old size");
    }
    const grown = new Geometry(geometry);
    const { capacityBytes } = grown;
    const sameCut = new Geometry({ ...this.geometry, capacityBytes }).equals(grown);
    if (!sameCut || capacityBytes < this.geometry.capacityBytes) {
      throw new EngineError("BAD_GEOMETRY", "a device that grows is cut up as before");
    }
    if (cbt.capacityBytes !== capacityBytes) {
      throw new EngineError("MAP_GEOMETRY", "the CBT map is of a device of another size");
    }
    core.resize(grown, cbt);
    this.geometry = grown;
  }

  /** Bytes of the copy window that each image tag needs. */
  get imageCopyWindowBytes(): number {
    return 2 * this.geometry.blockBytes;
  }

  /** Writes, and slices of kept-back discards, issued to the original and not answered yet. */
  get inflightWrites(): number {
    return this.core.inflightWrites;
  }

  /** The range of submitKept, until its answer. */
  get keptSlice(): KeptSlice {
    return this.core.slice;
  }

  /** Bytes of discards that are kept back. */
  get keptDiscardBytes(): number {
    return this.core.kept.bytes;
  }

  /** The attached area, also while it closes; null if there is none. */
  get area(): DiffArea | null {
    return this.core.area;
  }

  /** True between hold() and release() or switchAndRelease(). */
  get isHolding(): boolean {
    return this.core.holding;
  }

  /** A new request of the front; op, offset and length are in `front`. */
  submitFront(tag: number): void {
    this.frontPath.submit(tag);
  }

  /** A new request of the image; op, offset and length are in `image`. */
  submitImage(tag: number): void {
    this.imagePath.submit(tag);
    this.settle();
  }

  /** Answer to submitOriginal: bytes or 0, or -errno. */
  onOriginalDone(tag: number, result: number): void {
    this.frontPath.onOriginalDone(tag, result);
  }

  /** Answer to submitCopy: >= 0, or -errno with the side that failed (CopyFault). */
  onCopyDone(copyId: number, result: number, fault: number): void {
    this.copyPath.onDone(copyId, result, fault);
    this.settle();
  }

  /** Answer to submitRun: exactly `runs.lengthBytes[runId]`, or -errno. */
  onRunDone(runId: number, result: number): void {
    try {
      this.imagePath.onRunDone(runId, result);
    } finally {
      this.settle();
    }
  }

  /** Answer to submitKept: >= 0, or -errno. */
  onKeptDone(result: number): void {
    this.keeper.ended(result);
    this.settle();
    if (this.core.holding) this.frontPath.reportDrained();
    this.keeper.next();
  }

  /** Forgets the discards that are kept back. A slice that is in flight continues. */
  forgetKept(): void {
    this.core.kept.clear();
  }

  /** The old data of a copy is in its window: the store's bound begins. */
  onCopyRead(copyId: number): void {
    const { mode, state } = this.copies;
    if (state[copyId] !== IoState.LIVE) return;
    this.copyPath.onStage(copyId, IoStage.STORING);
    if (mode[copyId] === CopyMode.APART) this.frontPath.issueBefore(copyId);
  }

  /** The copy, or the run, is in its slot; the host bounds the rest. */
  onCopyWritten(copyId: number): void {
    if (this.copies.state[copyId] === IoState.LIVE) {
      this.copyPath.onStage(copyId, IoStage.RECORDING);
    }
  }

  onRunWritten(runId: number): void {
    this.imagePath.onRunWritten(runId);
  }

  /**
   * Time passes: I/O that has not been answered for more than `lateTicks` ticks is late. The host calls this at even
   * intervals as long as it returns true, and again from the next question on.
   */
  tick(): boolean {
    const { core, copies, runs } = this;
    core.ioTicks++;
    this.copyPath.expire();
    this.imagePath.expire();
    this.settle();
    return copies.liveCount + runs.liveCount > 0;
  }

  /** Slots were granted or denied; called by the area. */
  onSlotsAnswered(granted: boolean): void {
    // Requests that were refused before come first.
    if (granted) this.core.unblock();
    this.wakeAll(this.core.slotWaiters);
    this.settle();
  }

  /** Time has passed; called by the area. */
  onTick(): void {
    const { core } = this;
    const area = core.area!;
    core.ticks++;
    for (let tag = core.blocked.head; tag !== NONE; tag = core.links[tag]) {
      if (core.ticks - core.front.blockedSince[tag] > area.blockedTicksMax) area.gaveUp = true;
    }
    core.unblock();
    this.settle();
  }

  /**
   * Holds writes to the original from now on; reads and flushes continue. Calls onDrained, perhaps from inside, once no
   * write is in flight.
   */
  hold(): void {
    if (this.core.holding) throw new EngineError("BAD_STATE", "writes are held already");
    this.core.holding = true;
    this.core.drainReported = false;
    this.frontPath.reportDrained();
  }

  /** Attaches a prepared area; nothing is copied before switchAndRelease(). */
  attachArea(area: DiffArea): void {
    this.adopt(area, AreaState.PREPARED);
    this.core.phase = AreaPhase.PREPARED;
    this.core.askForSlots();
  }

  /** Resumes an area that was active when the last process ended. Call it before any request. */
  resumeArea(area: DiffArea): void {
    this.adopt(area, AreaState.ACTIVE);
    this.core.phase = AreaPhase.ACTIVE;
    this.copyPath.resume();
    this.core.askForSlots();
  }

  /**
   * The take: the present content of the original becomes the image. Only while held and drained. The CBT numbers
   * switch, copying begins, and the held writes continue.
   */
  switchAndRelease(): void {
    const { core } = this;
    if (!core.holding || core.inflightWrites > 0 || core.phase !== AreaPhase.PREPARED) {
      throw new EngineError(
        "BAD_STATE",
        "take needs an attached area, and writes held and drained",
      );
    }
    core.activeMap().setState(AreaState.ACTIVE);
    core.phase = AreaPhase.ACTIVE;
    core.cbt.switch();
    this.release();
  }

  /** Ends a hold without a take: the held writes continue. */
  release(): void {
    const { core } = this;
    if (!core.holding) throw new EngineError("BAD_STATE", "no writes are held");
    core.holding = false;
    // They restart: marks and copies from before the take do not count after it.
    let failure: unknown;
    for (let tag = core.held.pop(); tag !== NONE; tag = core.held.pop()) {
      try {
        this.frontPath.start(tag);
      } catch (error) {
        failure ??= error;
      }
    }
    this.settle();
    this.keeper.next();
    if (failure !== undefined) throw failure;
  }

  /**
   * The content of this slot and of those after it in its store is lost from now on. findLost() has to find the chunks
   * that it belonged to. Cold.
   */
  loseSlots(firstSlot: number): void {
    const { core } = this;
    if (core.phase !== AreaPhase.ACTIVE) return;
    core.loseSlots(firstSlot, core.area!.lastSlotBeside(firstSlot));
  }

  /**
   * Looks for chunks whose slots were lost, for about so many units of work (chunks, and blocks that are lost).
   * Returns true if there are more. Chunks not scanned yet count as lost already. Cold.
   */
  findLost(unitsMax: number): boolean {
    const { core } = this;
    const [lost] = core.lostSlots;
    if (lost === undefined) return false;
    lost.step(unitsMax);
    if (lost.isDone) core.lostSlots = core.lostSlots.filter((one) => one !== lost);
    return core.lostSlots.length > 0;
  }

  /**
   * Ends the snapshot of this device. Front requests continue without copies, image requests end with
   * -EIO. Calls onAreaClosed, perhaps from inside, once nothing in flight needs the area, or is late.
   */
  dropArea(): void {
    const { core } = this;
    if (core.area === null || core.phase === AreaPhase.CLOSING) {
      throw new EngineError("BAD_STATE", "there is no area to drop, or it is being dropped");
    }
    core.activeMap().setState(AreaState.DROPPED);
    core.phase = AreaPhase.CLOSING;
    core.lostSlots = [];
    this.wakeAll(core.copyWaiters);
    this.wakeAll(core.runWaiters);
    this.wakeAll(core.slotWaiters);
    core.unblock();
    for (let copy = 0; copy < core.copies.size; copy++) core.wakeWaiters(copy);
    this.settle();
  }

  /** Of the CBT map. */
  get cbtBlockBytes(): number {
    return 2 ** this.core.cbt.blockShift;
  }

  /** Marks a range as changed, in the CBT map that can be read now and in the next one. Cold. Throws RANGE. */
  markDirty(offsetBytes: number, lengthBytes: number): void {
    this.core.cbt.markRange(offsetBytes, lengthBytes);
    this.core.discardWatch.noteBypass();
    this.keeper.noteBypass(offsetBytes, lengthBytes);
  }

  private adopt(area: DiffArea, state: number): void {
    const { core } = this;
    if (core.area !== null) throw new EngineError("BAD_STATE", "an area is attached already");
    if (!area.map.geometry.equals(this.geometry)) {
      throw new EngineError("MAP_GEOMETRY", "the area's map is of another device");
    }
    if (area.map.state !== state) {
      throw new EngineError("BAD_STATE", `area in state ${area.map.state}, expected ${state}`);
    }
    core.area = area;
    area.listener = this;
  }

  private wakeAll(queue: RequestQueue): void {
    this.core.ready.appendAll(queue);
  }

  /** Lets every request continue that can. If the host throws for one, the others still continue. */
  private settle(): void {
    const { core } = this;
    if (this.settling) return;
    if (core.hasNoWaiters()) {
      if (core.phase === AreaPhase.CLOSING) this.close();
      return;
    }
    this.settling = true;
    let failure: unknown;
    for (;;) {
      let id = core.ready.pop();
      if (id === NONE && core.copies.freeCount > 0) {
        id = core.copyWaiters.pop();
        if (id !== NONE) core.serving = Serving.COPY_WAITER;
      }
      if (id === NONE && core.runs.freeCount > 0) {
        id = core.runWaiters.pop();
        if (id !== NONE) core.serving = Serving.RUN_WAITER;
      }
      if (id === NONE) break;
      try {
        this.advance(id);
      } catch (error) {
        failure ??= error;
      }
      core.serving = Serving.NOBODY;
    }
    this.settling = false;
    if (core.phase === AreaPhase.CLOSING) this.close();
    if (failure !== undefined) throw failure;
  }

  private advance(id: number): void {
    const { front, image } = this.core;
    if (id < front.depth) {
      assert(front.pending[id] === 0, "front request woken with copies in flight");
      if (front.isAnswered[id] === 1) {
        this.frontPath.endAnswered(id);
        return;
      }
      front.state[id] = RequestState.ACTIVE;
      this.frontPath.advance(id);
    } else {
      const tag = id - front.depth;
      assert(image.pending[tag] === 0, "image request woken with something in flight");
      image.state[tag] = RequestState.ACTIVE;
      this.imagePath.advance(tag);
    }
  }

  private close(): void {
    const { core } = this;
    if (core.copies.liveCount > 0 || core.runs.liveCount > 0) return;
    this.copyPath.orphan();
    this.imagePath.orphan();
    core.area!.listener = null;
    core.area = null;
    core.phase = AreaPhase.NONE;
    core.io.onAreaClosed();
    this.keeper.next();
  }
}
