/**
 * One tracked device on its reactor: both ublk queues, the engine between them, and all I/O that the
 * engine asks for. Nothing of it is ever touched by another thread.
 *
 * ```
 *   front queue ──▶ engine.submitFront ──▶ submitOriginal ──▶ FileIo ──▶ original
 *                        │ old data first                                   ▲ │
 *                        ▼                                                  │ ▼
 *                    submitCopy ──▶ AreaIo ── READ original ─link─▶ WRITE slot
 *                                     ▲
 *   image queue ──▶ engine.submitImage ──▶ submitRun
 * ```
 */

import {
  CbtMap,
  type DiffArea,
  DiffAreaMap,
  type EngineIo,
  RequestOp,
  TrackerEngine,
} from "@blksnap/engine";
import type { QueueStart } from "@blksnap/ublk";
import { FileIo, type FileIoOwner, type Queue } from "@blksnap/ublk";
import { assert, MappedMemory, type Reactor } from "@blksnap/uring";
import { AreaCounter } from "./area-counter.js";
import { AreaDrop } from "./area-drop.js";
import { AreaIo } from "./area-io.js";
import type { AreaJournal } from "./area-journal.js";
import { type AreaIoBase, areaIoOptions, makeArea } from "./area-setup.js";
import { AreaTicker } from "./area-ticker.js";
import { IoCounter, type TrackedDeviceCounters } from "./counters.js";
import { DeviceCounters } from "./device-counters.js";
import { makeQueue, QueueEnd, startQueue } from "./device-queue.js";
import { frontTarget, imageTarget } from "./device-targets.js";
import { errorText } from "./error-text.js";
import { faultPoint } from "./fault-points.js";
import { FreedSlots } from "./freed-slots.js";
import { type IoTicker, LATE_TICKS } from "./io-ticker.js";
import type { JournalSetup } from "./journal-io.js";
import { KeptIo } from "./kept-io.js";
import { LostRanges } from "./lost-ranges.js";
import type {
  AreaSetup,
  AttachRequest,
  GrantMessage,
  ReactorNotice,
  ReactorSettings,
  SleepingArea,
  WakingArea,
} from "./messages.js";
import { SleepingCopies } from "./sleeping-copies.js";
import { Slices } from "./slices.js";
import { WriteGate } from "./write-gate.js";
import { WriteHold } from "./write-hold.js";

const EIO = 5;
const PARTS_PER_TAG = 4; // Copies in flight per request in flight, and image parts.
export class TrackedDevice implements EngineIo, FileIoOwner {
  readonly engine: TrackerEngine;
  readonly #id: number;
  readonly #reactor: Reactor;
  readonly #imageDepth: number;
  readonly #notify: (notice: ReactorNotice) => void;
  readonly #cbtMemory: MappedMemory;
  readonly #cbt: CbtMap;
  /** Of a persistent tracker. */
  readonly gate: WriteGate | undefined;
  readonly #frontQueue: Queue;
  readonly #fileIo: FileIo;
  readonly #keptIo: KeptIo;
  readonly #counters = new DeviceCounters();
  #imageQueue: Queue | undefined;
  readonly #areaIoBase: AreaIoBase;
  #areaIo: AreaIo | undefined;
  #areaMemory: MappedMemory | undefined;
  #area: DiffArea | undefined;
  #sleeping: SleepingCopies | undefined; // While the stores of a resumed area are not open.
  areaId = 0; // Tells the present area from others.
  #ticker: AreaTicker | undefined;
  readonly #freed: FreedSlots;
  /** Long work of this device. */
  readonly slices: Slices;
  readonly lostRanges: LostRanges;
  readonly #hold: WriteHold;
  readonly #drop = new AreaDrop();
  readonly #frontEnd = new QueueEnd(() =>
    this.#notify({ notice: "frontEnded", tracker: this.#id }),
  );
  readonly #imageEnd = new QueueEnd(() =>
    this.#notify({ notice: "imageEnded", tracker: this.#id }),
  );

  constructor(
    reactor: Reactor,
    settings: ReactorSettings,
    request: AttachRequest,
    ioTicker: IoTicker,
    notify: (notice: ReactorNotice) => void,
  ) {
    this.#id = request.tracker;
    this.#reactor = reactor;
    this.#notify = notify;
    this.slices = new Slices(reactor);
    this.lostRanges = new LostRanges(this.slices);
    this.#freed = new FreedSlots(reactor, {
      tell: (slots) => notify({ notice: "freed", tracker: this.#id, area: this.areaId, slots }),
      grant: (slot) => this.#area?.grantSlots(slot, 1),
      area: () => this.#area?.slots,
      isHung: (slot) => this.#area?.isHung(slot) === true,
    });
    const { queueDepth, maxIoBytes } = request.queue;
    this.#imageDepth = Math.max(settings.imageDepth, request.area?.imageDepth ?? 0);
    const copyWindowBytes = maxIoBytes + 2 * (1 << request.geometry.blockShift);
    this.#cbtMemory = MappedMemory.file(request.cbt.fd, 0, request.cbt.lengthBytes);
    this.#cbt = CbtMap.open(this.#cbtMemory.buffer, { owner: true });
    this.engine = new TrackerEngine(request.geometry, this, {
      frontDepth: queueDepth,
      imageDepth: this.#imageDepth,
      copyWindowBytes,
      copiesMax: queueDepth * PARTS_PER_TAG,
      runsMax: this.#imageDepth * PARTS_PER_TAG,
      lateTicks: LATE_TICKS,
      cbt: this.#cbt,
    });
    this.#hold = new WriteHold(reactor, this.engine);
    this.gate = request.journal && this.#openJournal(request.journal, ioTicker);
    this.#frontQueue = this.#makeQueue(request.queue, () => this.#frontEnd.end());
    this.#fileIo = new FileIo(reactor, this.#frontQueue, request.originalFd, request.isBlock, this);
    this.#keptIo = new KeptIo(reactor, this.engine, this.gate, request);
    this.#areaIoBase = {
      reactor,
      ticker: ioTicker,
      engine: this.engine,
      originalIndex: this.#fileIo.fileIndex,
      frontDepth: queueDepth,
      imageDepth: this.#imageDepth,
      frontWindowBytes: copyWindowBytes,
      imageWindowBytes: this.engine.imageCopyWindowBytes,
    };
    if (request.area !== undefined) this.#resumeArea(request.area);
    ioTicker.add(this);
  }

  /** Serves the front. When it throws, awaitFrontEnd() tells when the device can be closed. */
  start(): void {
    startQueue(this.#frontQueue, frontTarget(this.#frontQueue, this.engine), this.#frontEnd);
  }

  // ---- what the main thread asks for ----

  /** Attaches a new diff area; nothing is copied before switchAndRelease(). */
  prepareArea(setup: AreaSetup): void {
    const memory = this.#openAreaMap(setup);
    try {
      this.#openAreaIo(setup);
      const map = DiffAreaMap.create(memory.buffer, this.engine.geometry);
      const area = this.#makeArea(map, setup);
      const { extents: given } = setup;
      for (let i = 0; i < given.length; i += 2) area.grantSlots(given[i], given[i + 1]);
      this.engine.attachArea(area);
    } catch (error) {
      this.closeArea();
      throw error;
    }
  }

  wakeArea(setup: WakingArea): void {
    const sleeping = this.#sleeping;
    assert(sleeping !== undefined && setup.id === this.areaId, "the area does not sleep");
    const areaIo = this.#openAreaIo(setup);
    this.#sleeping = undefined;
    // Told once per area, and that was the daemon before this one: its journal is another one.
    if (this.#area?.map.faultErrno !== 0) this.noteAreaLost();
    sleeping.begin(areaIo);
  }

  /** Calls back when no write to the original is in flight any more; new ones are kept back. */
  hold(deadlineMs: number, onDrained: () => void): void {
    this.#hold.begin(deadlineMs, onDrained, () =>
      this.#notify({ notice: "holdExpired", tracker: this.#id }),
    );
  }

  /** The instant of the take. Answers for how long writes were held, in microseconds. */
  switchAndRelease(): number {
    assert(this.#hold.isActive, "the hold has expired");
    this.gate?.noteSwitch();
    const stallUs = this.#hold.switchAndRelease();
    faultPoint("take.one-switched");
    return stallUs;
  }

  readonly release = (): void => this.#hold.release();

  /** No copy-on-write from here on; calls back when nothing refers to the area any more. */
  dropArea(onClosed: () => void): void {
    if (!this.#drop.begin(onClosed)) return;
    this.noteAreaLost();
    this.engine.dropArea();
    this.#sleeping?.giveUp();
    this.#sleeping = undefined;
  }

  /** From here on writes are not copied: whoever finds the area's journal must not believe it. */
  noteAreaLost(): void {
    const { areaJournal } = this;
    if ((areaJournal ?? this.#sleeping) !== undefined) this.gate?.journal.noteAreaLost();
  }

  /**
   * Gives up the area, after dropArea and the end of the image's queue. What is late keeps the memory and
   * files that it needs until the notice "areaIdle": then the answer is the area's id.
   */
  closeArea(): number | null {
    const of = { tracker: this.#id, area: this.areaId };
    this.#freed.clear();
    this.lostRanges.use(undefined);
    const idle = this.#areaIo?.close(() => this.#notify({ notice: "areaIdle", ...of }));
    this.#areaMemory?.unmap();
    this.#areaIo = undefined;
    this.#areaMemory = undefined;
    this.#sleeping = undefined;
    this.#area = undefined;
    this.#drop.done();
    this.#counters.area = undefined;
    return idle === false ? of.area : null;
  }

  openImage(start: QueueStart): void {
    assert(this.#imageEnd.isEnded, "the device has an image already");
    assert(start.queueDepth <= this.#imageDepth, "the image has more tags than its engine");
    const areaIo = this.#areaIo;
    assert(areaIo !== undefined, "an image needs a diff area");
    const queue = this.#makeQueue(start, () => {
      this.#imageQueue = undefined;
      this.#imageEnd.end();
    });
    this.#imageQueue = queue;
    areaIo.imageQueue = queue;
    const target = imageTarget(queue, this.engine, this.gate, () => this.#area !== undefined);
    startQueue(queue, target, this.#imageEnd);
  }

  readonly awaitFrontEnd = (onEnd: () => void): void =>
    this.#frontEnd.await(() => this.#keptIo.end(onEnd));

  readonly awaitImageEnd = (onEnd: () => void): void => this.#imageEnd.await(onEnd);

  grant({ area, firstSlot, count, errno }: GrantMessage): void {
    if (this.#area === undefined || area !== this.areaId) return;
    if (count > 0) this.#area.grantSlots(firstSlot, count);
    else this.#freed.reuse(1, () => this.#area?.denySlots(errno));
    faultPoint("slots.granted");
  }

  /** Time goes on. True while something is in flight that has a bound. */
  tickIo(): boolean {
    const inGate = this.gate?.journal.io.tick() ?? false;
    return [this.engine.tick(), this.areaJournal?.io.tick(), inGate].includes(true);
  }

  readonly counters = (): TrackedDeviceCounters => this.#counters.snapshot(this.engine);

  /** After the front's queue ended. An area that is still here is one to be gone on with later. */
  close(): void {
    this.#areaIoBase.ticker.remove(this);
    if (this.#area !== undefined) this.closeArea();
    this.#fileIo.close();
    this.gate?.journal.drop();
    this.slices.close();
    this.#keptIo.close();
    this.#cbtMemory.unmap();
  }

  // ---- what the engine asks for ----

  submitOriginal(tag: number): void {
    const { gate } = this;
    if (gate === undefined || gate.admitFront(tag)) this.#fileIo.submit(tag);
  }

  readonly submitKept = (): void => this.#keptIo.submit();

  onFileIo(tag: number, result: number): void {
    if (this.#area !== undefined) faultPoint("copy.original-written");
    this.engine.onOriginalDone(tag, result);
  }

  completeFront(tag: number, result: number): void {
    const { front } = this.engine;
    this.#counters.front.count(front.op[tag], front.lengthBytes, tag, result);
    this.#frontQueue.complete(tag, result);
  }

  completeImage(tag: number, result: number): void {
    const { image } = this.engine;
    this.#counters.image.count(image.op[tag], image.lengthBytes, tag, result);
    const discarded = image.op[tag] === RequestOp.DISCARD && result === 0 ? this.#area : undefined;
    if (discarded !== undefined) this.areaJournal?.recordDiscard(image, tag, discarded.map);
    (this.#imageQueue as Queue).complete(tag, result);
  }

  submitCopy(copy: number): void {
    if (this.#sleeping !== undefined) this.#sleeping.add(copy);
    else (this.#areaIo as AreaIo).submitCopy(copy);
  }

  readonly submitRun = (run: number): void => (this.#areaIo as AreaIo).submitRun(run);

  requestSlots(wanted: number): void {
    faultPoint("slots.asked");
    const of = { tracker: this.#id, area: this.areaId };
    this.#freed.reuse(wanted, () => this.#notify({ notice: "slots", ...of, wanted }));
  }

  freeSlot(slot: number): void {
    this.#freed.add(slot, this.areaJournal !== undefined);
  }

  onWritesBlocked(): void {
    if (this.#area === undefined || this.#ticker?.start(this.#area) !== true) return;
    this.#notify({ notice: "blocked", tracker: this.#id, area: this.areaId });
  }

  readonly onDrained = (): void => this.#hold.drained();

  onAreaFault(errno: number): void {
    this.noteAreaLost();
    this.#notify({ notice: "fault", tracker: this.#id, area: this.areaId, errno });
  }

  readonly onCopyLate = (copy: number): void => this.#areaIo?.setCopyLate(copy);

  readonly onRunLate = (run: number): void => this.#areaIo?.setRunLate(run);

  onStoreHung(store: number): void {
    this.#notify({ notice: "storeHung", tracker: this.#id, area: this.areaId, store });
  }

  onStoreAnswered(store: number): void {
    this.#freed.offer();
    this.#notify({ notice: "storeAnswered", tracker: this.#id, area: this.areaId, store });
  }

  readonly onAreaClosed = (): void => this.#drop.done();

  // ---- journals ----

  /** Of the present area, where it is in a persistent snapshot. */
  get areaJournal(): AreaJournal | undefined {
    return this.#areaIo?.journal;
  }

  get areaMap(): DiffAreaMap | undefined {
    return this.#area?.map;
  }

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
      onImageAdmitted: (tag) => {
        if (this.#area !== undefined) this.engine.submitImage(tag);
        else this.#imageQueue?.complete(tag, -EIO);
      },
    });
  }

  // ---- areas ----

  /** Goes on with the area of a snapshot that an earlier daemon took. */
  #resumeArea(setup: SleepingArea): void {
    const memory = this.#openAreaMap(setup);
    this.#sleeping = new SleepingCopies(this.engine);
    this.engine.resumeArea(this.#makeArea(DiffAreaMap.open(memory.buffer), setup));
  }

  #openAreaMap({ map }: SleepingArea): MappedMemory {
    assert(this.#areaMemory === undefined, "the device has a diff area already");
    this.#areaMemory = MappedMemory.file(map.fd, 0, map.lengthBytes);
    this.#counters.image = new IoCounter();
    return this.#areaMemory;
  }

  #openAreaIo(setup: WakingArea): AreaIo {
    const options = areaIoOptions(this.#areaIoBase, this.#id, setup, this.#notify);
    this.#areaIo = this.#reactor.attempt(() => new AreaIo(options));
    return this.#areaIo;
  }

  #makeArea(map: DiffAreaMap, setup: SleepingArea): DiffArea {
    const area = makeArea(map, setup);
    this.#ticker = new AreaTicker(this.#reactor, setup.overflow.tickMs);
    this.#area = area;
    this.#drop.reset();
    this.#counters.area = new AreaCounter(area, this.engine.stats.snapshot(), setup.figures);
    this.lostRanges.use(map);
    this.areaId = setup.id;
    return area;
  }

  #makeQueue(start: QueueStart, onEnd: () => void): Queue {
    return makeQueue(this.#reactor, start, onEnd, (error) =>
      this.#notify({ notice: "error", message: `tracker ${this.#id}: ${errorText(error)}` }),
    );
  }
}
