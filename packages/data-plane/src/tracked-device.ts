/**
 * One tracked device on its reactor: the front's queue, the engine's host, the I/O of the original. A diff area's part
 * is in device-area.ts. No other thread touches any of it.
 *
 * ```
 *   front queue ──▶ engine.submitFront ──▶ submitOriginal ──▶ FileIo ──▶ original
 *                        │ old data first                                   ▲ │
 *                        ▼                                                  │ ▼
 *                    submitCopy ──▶ DeviceArea ── READ original ─link─▶ WRITE slot
 *                                       ▲
 *   image queue ──▶ engine.submitImage ─┴▶ submitRun
 * ```
 */
import { CbtMap, type EngineIo, TrackerEngine } from "@blksnap/engine";
import { FileIo, type FileIoOwner } from "@blksnap/ublk";
import { assert, MappedMemory, type Reactor } from "@blksnap/uring";
import { NO_AREA } from "./area-counter.js";
import type { AreaId } from "./area-id.js";
import { IoCounter, type TrackedDeviceCounters } from "./counters.js";
import { type AreaHost, DeviceArea } from "./device-area.js";
import { makeQueue, QueueEnd, type ServedQueue, startQueue } from "./device-queue.js";
import { frontTarget } from "./device-targets.js";
import { CopyDurations, clockStride, Durations } from "./durations.js";
import { errorText } from "./error-text.js";
import { faultPoint } from "./fault-points.js";
import { growDevice } from "./growth.js";
import { type IoTicker, LATE_TICKS } from "./io-ticker.js";
import type { JournalSetup } from "./journal-io.js";
import { KeptIo } from "./kept-io.js";
import type {
  AreaSetup,
  AttachRequest,
  GrowReply,
  GrowRequest,
  ReactorNotice,
  ReactorSettings,
  ServeNbdRequest,
  WakingArea,
} from "./messages.js";
import { NBD_DEPTH, NbdDoor } from "./nbd-door.js";
import { connectionOf } from "./nbd-request.js";
import { nbdFrontTarget } from "./nbd-targets.js";
import type { NewMap } from "./new-map.js";
import type { QueueMemory } from "./queue-memory.js";
import { Slices } from "./slices.js";
import { WriteGate } from "./write-gate.js";
import { WriteHold } from "./write-hold.js";

const PARTS_PER_TAG = 4; // Copies in flight per request in flight, and image parts.

export class TrackedDevice implements EngineIo, FileIoOwner {
  readonly engine: TrackerEngine;
  readonly #id: number;
  readonly #reactor: Reactor;
  readonly #notify: (notice: ReactorNotice) => void;
  #cbtMemory: MappedMemory;
  #cbt: CbtMap;
  /** Undefined unless the tracker is persistent. */
  readonly gate: WriteGate | undefined;
  readonly #frontQueue: ServedQueue;
  readonly #frontCounter = new IoCounter();
  readonly #fileIo: FileIo;
  readonly #keptIo: KeptIo;
  readonly #ticker: IoTicker;
  readonly #areaHost: AreaHost;
  readonly #copyDurations: CopyDurations;
  readonly #takeStalls = new Durations();
  /** The present area, or the last one: its image and its counters outlive it. */
  #area: DeviceArea | undefined;
  /** Long work of this device. */
  readonly slices: Slices;
  readonly #hold: WriteHold;
  /** Connections to the front. */
  readonly #nbd: NbdDoor;
  readonly #frontEnd = new QueueEnd(() =>
    this.#notify({ notice: "frontEnded", tracker: this.#id }),
  );

  constructor(
    reactor: Reactor,
    settings: ReactorSettings,
    request: AttachRequest,
    ioTicker: IoTicker,
    notify: (notice: ReactorNotice) => void,
    memory?: QueueMemory,
  ) {
    this.#id = request.tracker;
    this.#reactor = reactor;
    this.#notify = notify;
    this.slices = new Slices(reactor);
    const { queueDepth, maxIoBytes } = request.queue;
    const imageDepth = Math.max(settings.imageDepth, request.area?.imageDepth ?? 0);
    const imageTags = imageDepth + NBD_DEPTH;
    const copyWindowBytes = maxIoBytes + 2 * (1 << request.geometry.blockShift);
    this.#cbtMemory = MappedMemory.file(request.cbt.fd, 0, request.cbt.lengthBytes);
    reactor.noteTaken(() => this.#cbtMemory.unmap());
    this.#cbt = CbtMap.open(this.#cbtMemory.buffer, { owner: true });
    this.engine = new TrackerEngine(request.geometry, this, {
      frontDepth: queueDepth,
      imageDepth: imageTags,
      copyWindowBytes,
      copiesMax: queueDepth * PARTS_PER_TAG,
      runsMax: imageTags * PARTS_PER_TAG,
      lateTicks: LATE_TICKS,
      forgetsDiscards: request.forgetsDiscards ?? false,
      cbt: this.#cbt,
    });
    this.#copyDurations = new CopyDurations(reactor, this.engine.copies.size, clockStride());
    this.#hold = new WriteHold(reactor, this.engine);
    this.gate = request.journal && this.#openJournal(request.journal, ioTicker);
    this.#frontQueue = this.#makeQueue(request.queue, memory);
    this.#fileIo = new FileIo(
      reactor,
      this.#frontQueue.queue,
      request.originalFd,
      request.isBlock,
      this,
    );
    this.#keptIo = new KeptIo(reactor, this.engine, this.gate, request);
    const { engine, slices, gate } = this;
    const ioBase = {
      reactor,
      ticker: ioTicker,
      engine,
      copyDurations: this.#copyDurations,
      originalIndex: this.#fileIo.fileIndex,
      frontDepth: queueDepth,
      imageDepth,
      frontWindowBytes: copyWindowBytes,
      imageWindowBytes: engine.imageCopyWindowBytes,
    };
    const { tracker } = request;
    this.#areaHost = {
      tracker,
      reactor,
      engine,
      slices,
      gate,
      ioBase,
      imageDepth,
      maxIoBytes,
      notify,
    };
    this.#nbd = new NbdDoor({
      reactor,
      slices,
      maxIoBytes,
      openTarget: (queue) => nbdFrontTarget(reactor, queue, request.originalFd, request.isBlock),
      onError: (error) => this.#reportError(error),
    });
    if (request.area !== undefined) {
      this.#area = DeviceArea.resume(this.#areaHost, request.area);
      engine.resumeArea(this.#area.diffArea);
    }
    this.#ticker = ioTicker;
    ioTicker.add(this);
    // Last: if anything fails before, everything is undone; from here on a commit is in flight.
    for (const area of request.lostAreas ?? []) this.gate?.journal.noteAreaLost(area);
  }

  /** Serves the front. If it throws, awaitFrontEnd() says when the device can be closed. */
  start(): void {
    const { queue } = this.#frontQueue;
    startQueue(this.#frontQueue, frontTarget(queue, this.engine), this.#frontEnd);
  }

  // ---- requests of the main thread ----

  /** The area with this id, also after its end; undefined once another one has replaced it. */
  areaOf(id: AreaId): DeviceArea | undefined {
    return this.#area?.id === id ? this.#area : undefined;
  }

  newMap(setup: AreaSetup): NewMap {
    return DeviceArea.newMap(this.#areaHost, setup);
  }

  /**
   * Attaches a new diff area; nothing is copied before switchAndRelease().
   * @param map from newMap(), with all its memory populated
   */
  prepareArea(setup: AreaSetup, map: NewMap): void {
    assert(this.#area?.isGone !== false, "the device has a diff area already");
    const area = DeviceArea.prepare(this.#areaHost, setup, map);
    this.#area = area;
    try {
      this.engine.attachArea(area.diffArea);
    } catch (error) {
      area.close();
      throw error;
    }
  }

  /** The stores of its area are open. */
  wakeArea(setup: WakingArea): void {
    const area = this.areaOf(setup.id);
    assert(area !== undefined, "the device has no such area");
    area.wake(setup);
  }

  /** Holds new writes; calls back when no write to the original is in flight. */
  hold(deadlineMs: number, onDrained: () => void): void {
    this.#hold.begin(deadlineMs, onDrained, () =>
      this.#notify({ notice: "holdExpired", tracker: this.#id }),
    );
  }

  /** The instant of the area's take. Returns how long writes were held, in microseconds. */
  switchAndRelease(area: AreaId): number {
    assert(this.#hold.isActive, "the hold has expired");
    assert(this.areaOf(area)?.isOpen === true, "the device has no such area");
    this.gate?.noteSwitch(area);
    const stallUs = this.#hold.switchAndRelease();
    this.#takeStalls.add(stallUs);
    faultPoint("take.one-switched");
    return stallUs;
  }

  readonly release = (): void => this.#hold.release();

  /** The original has become larger: see GrowRequest. @param acquire as of carryOutJournal() */
  grow(request: GrowRequest, acquire: () => boolean, done: (reply: GrowReply) => void): void {
    growDevice({
      slices: this.slices,
      hold: this.#hold,
      deadlineMs: request.deadlineMs,
      exchange: () => acquire() && this.#exchange(request),
      done,
    });
  }

  #exchange({ geometry, cbt, journal }: GrowRequest): true {
    const memory = MappedMemory.file(cbt.fd, 0, cbt.lengthBytes);
    try {
      const map = CbtMap.open(memory.buffer, { owner: true });
      const grow = (): void => this.engine.grow(geometry, map);
      if (this.gate === undefined) grow();
      else this.gate.renew(journal, map, grow);
      this.#cbt = map;
    } catch (error) {
      memory.unmap();
      throw error;
    }
    const before = this.#cbtMemory;
    this.#cbtMemory = memory;
    // What still reads it finds that it is of no generation any more.
    before.unmap();
    return true;
  }

  /** Calls back at the end of the front; ends it unless its device does that. */
  readonly awaitFrontEnd = (onEnd: () => void): void => {
    this.#frontEnd.await(() => this.#keptIo.end(() => this.#endNbd(onEnd)));
    if (!this.#frontEnd.isEnded) this.#frontQueue.end();
  };

  /** Connections of clients that the front, or the image of an area, has instead of a device. */
  connections(area: AreaId | null): number {
    if (area === null) return this.#frontQueue.connections;
    return this.areaOf(area)?.imageConnections ?? 0;
  }

  /** Serves a connection to the front, or to the image of an area. */
  serveNbd(request: ServeNbdRequest, done: (isServed: boolean) => void): void {
    const { params } = request;
    const area = request.area === null ? undefined : this.areaOf(request.area);
    if (request.area !== null && area === undefined) {
      done(false);
      return;
    }
    const connection = connectionOf(request, this.#cbt, area);
    const { adopt } = this.#frontQueue;
    if (area !== undefined) area.serveNbd(params, connection, done);
    else if (adopt !== undefined) done(adopt(connection));
    else this.#nbd.serve(params, connection, done);
  }

  #endNbd(onEnd: () => void): void {
    this.#nbd.end(() => {
      if (this.#area === undefined) onEnd();
      else this.#area.endNbd(onEnd);
    });
  }

  #reportError(error: unknown): void {
    this.#notify({ notice: "error", message: `tracker ${this.#id}: ${errorText(error)}` });
  }

  /** One tick. True while I/O with a bound is in flight. */
  tickIo(): boolean {
    const inGate = this.gate?.journal.io.tick() ?? false;
    const area = this.#area;
    return [this.engine.tick(), area?.journal?.io.tick(), area?.tickMap(), inGate].includes(true);
  }

  counters(): TrackedDeviceCounters {
    const { stats, keptDiscardBytes } = this.engine;
    const engine = stats.snapshot();
    return {
      front: this.#frontCounter.snapshot(),
      image: (this.#area?.imageCounter ?? new IoCounter()).snapshot(),
      keptDiscardBytes,
      engine,
      durations: {
        copy: this.#copyDurations.snapshot(),
        takeStall: this.#takeStalls.snapshot(),
      },
      area: this.#area?.counters(engine) ?? NO_AREA,
    };
  }

  /** Call it after awaitFrontEnd(). An area that is still here will be resumed later. */
  close(): void {
    this.#ticker.remove(this);
    this.#area?.close();
    this.#fileIo.close();
    this.gate?.journal.drop();
    this.slices.close();
    this.#keptIo.close();
    this.#cbtMemory.unmap();
  }

  // ---- questions of the engine ----

  submitOriginal(tag: number): void {
    const { gate } = this;
    if (gate === undefined || gate.admitFront(tag)) this.#fileIo.submit(tag);
  }

  readonly submitKept = (): void => this.#keptIo.submit();

  onFileIo(tag: number, result: number): void {
    if (this.#area?.isOpen === true) faultPoint("copy.original-written");
    this.engine.onOriginalDone(tag, result);
  }

  completeFront(tag: number, result: number): void {
    const { front } = this.engine;
    this.#frontCounter.count(front.op[tag], front.lengthBytes, tag, result);
    this.#frontQueue.queue.complete(tag, result);
  }

  completeImage(tag: number, result: number): void {
    (this.#area as DeviceArea).completeImage(tag, result);
  }

  submitCopy(copy: number): void {
    this.#copyDurations.begin(copy);
    (this.#area as DeviceArea).submitCopy(copy);
  }

  submitRun(run: number): void {
    (this.#area as DeviceArea).submitRun(run);
  }

  readonly requestSlots = (wanted: number): void => this.#area?.requestSlots(wanted);

  readonly requestMapSlice = (slice: number): void => this.#area?.requestMapSlice(slice);

  readonly freeSlot = (slot: number): void => this.#area?.freeSlot(slot);

  readonly onWritesBlocked = (): void => this.#area?.onWritesBlocked();

  readonly onDrained = (): void => this.#hold.drained();

  readonly onAreaFault = (errno: number): void => this.#area?.onFault(errno);

  readonly onCopyLate = (copy: number): void => this.#area?.onCopyLate(copy);

  readonly onRunLate = (run: number): void => this.#area?.onRunLate(run);

  readonly onStoreHung = (store: number): void => this.#area?.onStoreHung(store);

  readonly onStoreAnswered = (store: number): void => this.#area?.onStoreAnswered(store);

  readonly onAreaClosed = (): void => this.#area?.onClosed();

  #openJournal(setup: JournalSetup, ticker: IoTicker): WriteGate {
    return new WriteGate({
      reactor: this.#reactor,
      setup,
      ticker,
      engine: this.engine,
      cbt: this.#cbt,
      tracker: this.#id,
      notify: this.#notify,
      onFrontAdmitted: (tag) => this.#fileIo.submit(tag),
      onKeptAdmitted: () => this.#keptIo.admitted(),
      onImageAdmitted: (tag) => this.#area?.imageAdmitted(tag),
    });
  }

  #makeQueue(start: AttachRequest["queue"], memory: QueueMemory | undefined): ServedQueue {
    const onEnd = (): void => this.#frontEnd.end();
    return makeQueue(this.#reactor, start, onEnd, (error) => this.#reportError(error), memory);
  }
}
