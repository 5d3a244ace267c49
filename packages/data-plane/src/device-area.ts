/**
 * A diff area of a tracked device on its reactor: its map and slots, the I/O to its stores, its journal and its image.
 * Messages that name the area by its id end here.
 *
 * ```
 *   prepare ─▶ the take ─▶ copies ─▶ drop ─▶ close        a new one
 *   resume ─▶ sleeps ─ wake ─▶ copies                     one that an earlier daemon has left
 * ```
 *
 * Its image may outlive it: requests to the image then fail.
 */
import { type DiffArea, type DiffAreaMap, RequestOp, type TrackerEngine } from "@blksnap/engine";
import { EIO } from "@blksnap/errors";
import type { DeviceParams, RequestQueue, Target } from "@blksnap/ublk";
import { assert, type Reactor } from "@blksnap/uring";
import { AreaCounter, type AreaCounters, NO_AREA } from "./area-counter.js";
import { AreaDrop } from "./area-drop.js";
import type { AreaId } from "./area-id.js";
import type { AreaIo } from "./area-io.js";
import type { AreaJournal } from "./area-journal.js";
import { AreaMapFile } from "./area-map-file.js";
import { type AreaIoBase, makeArea, openIo, reportIdle } from "./area-setup.js";
import { AreaTicker } from "./area-ticker.js";
import { placesFor } from "./copy-places.js";
import { IoCounter } from "./counters.js";
import {
  type DeviceQueueStart,
  makeQueue,
  QueueEnd,
  type ServedQueue,
  startQueue,
} from "./device-queue.js";
import { imageTarget } from "./device-targets.js";
import { errorText } from "./error-text.js";
import { faultPoint } from "./fault-points.js";
import { FreedSlots } from "./freed-slots.js";
import { LostRanges } from "./lost-ranges.js";
import type {
  AreaSetup,
  GrantMessage,
  ReactorNotice,
  SleepingArea,
  WakingArea,
} from "./messages.js";
import { type NbdConnection, NbdDoor } from "./nbd-door.js";
import { nbdImageTarget } from "./nbd-targets.js";
import { NewMap } from "./new-map.js";
import type { QueueMemory } from "./queue-memory.js";
import { SleepingCopies } from "./sleeping-copies.js";
import type { Slices } from "./slices.js";
import type { WriteGate } from "./write-gate.js";

/** What an area needs of its device. */
export interface AreaHost {
  readonly tracker: number;
  readonly reactor: Reactor;
  readonly engine: TrackerEngine;
  readonly slices: Slices;
  /** Undefined unless the tracker is persistent. */
  readonly gate: WriteGate | undefined;
  readonly ioBase: AreaIoBase;
  readonly imageDepth: number;
  readonly maxIoBytes: number;
  readonly notify: (notice: ReactorNotice) => void;
}

export class DeviceArea {
  readonly id: AreaId;
  readonly map: DiffAreaMap;
  /** The engine's part of the area. */
  readonly diffArea: DiffArea;
  readonly lostRanges: LostRanges;
  readonly imageCounter: IoCounter = new IoCounter();
  readonly #host: AreaHost;
  readonly #mapFile: AreaMapFile;
  readonly #ticker: AreaTicker;
  readonly #freed: FreedSlots;
  readonly #counter: AreaCounter;
  readonly #drop = new AreaDrop();
  readonly #imageEnd: QueueEnd;
  #imageQueue: ServedQueue | undefined;
  readonly #nbd: NbdDoor;
  #nbdQueue: RequestQueue | undefined;
  /** Undefined while the area sleeps, and after it is closed. */
  #io: AreaIo | undefined;
  /** Defined while the stores of a resumed area are not open. */
  #sleeping: SleepingCopies | undefined;
  #isOpen = true;
  /** The area is closed, and I/O is still in flight. */
  #isLate = false;

  private constructor(
    host: AreaHost,
    setup: SleepingArea,
    mapFile: AreaMapFile,
    io: AreaIo | undefined,
  ) {
    const { reactor, engine, tracker, notify } = host;
    const { id: area } = setup;
    this.id = area;
    const { map } = mapFile;
    this.map = map;
    this.#host = host;
    this.#mapFile = mapFile;
    this.#io = io;
    this.diffArea = makeArea(map, setup);
    this.lostRanges = new LostRanges(host.slices);
    this.lostRanges.use(map);
    this.#ticker = new AreaTicker(reactor, setup.overflow.tickMs);
    this.#counter = new AreaCounter(this.diffArea, engine.stats.snapshot(), setup.figures);
    this.#nbd = new NbdDoor({
      reactor,
      slices: host.slices,
      maxIoBytes: host.maxIoBytes,
      openTarget: (queue) => this.#openNbdTarget(queue),
      onError: (error) => this.#reportError(error),
    });
    this.#imageEnd = new QueueEnd(() => notify({ notice: "imageEnded", tracker, area }));
    this.#freed = new FreedSlots(reactor, {
      report: (slots) => notify({ notice: "freed", tracker, area, slots }),
      grant: (slot) => this.diffArea.grantSlots(slot, 1),
      area: () => (this.#isOpen ? this.diffArea.slots : undefined),
      isHung: (slot) => this.diffArea.isHung(slot),
    });
  }

  /** The map of a new area; its memory is still to be populated. */
  static newMap({ engine, ioBase }: AreaHost, setup: AreaSetup): NewMap {
    const places = placesFor(engine, ioBase.frontWindowBytes, setup);
    return new NewMap(setup.map, engine.geometry, places);
  }

  /** Makes a new area, with its first slots. Leaves nothing behind if it throws. */
  static prepare(host: AreaHost, setup: AreaSetup, map: NewMap): DeviceArea {
    const mapFile = AreaMapFile.create(host.reactor, map, setup.id);
    let io: AreaIo | undefined;
    try {
      io = openIo(host, setup, mapFile);
      const made = new DeviceArea(host, setup, mapFile, io);
      const { extents } = setup;
      for (let i = 0; i < extents.length; i += 2) {
        made.diffArea.grantSlots(extents[i], extents[i + 1]);
      }
      return made;
    } catch (error) {
      io?.close(() => reportIdle(host, setup.id));
      mapFile.close();
      throw error;
    }
  }

  /** Resumes the area of a snapshot that an earlier daemon took. Its copies wait for wake() or drop(). */
  static resume(host: AreaHost, setup: SleepingArea): DeviceArea {
    const mapFile = AreaMapFile.open(host.reactor, setup.map);
    try {
      const resumed = new DeviceArea(host, setup, mapFile, undefined);
      resumed.#sleeping = new SleepingCopies(host.engine);
      return resumed;
    } catch (error) {
      mapFile.close();
      throw error;
    }
  }

  /** True until close(). */
  get isOpen(): boolean {
    return this.#isOpen;
  }

  /** True if the area is closed and its image has ended: another area may take its place. */
  get isGone(): boolean {
    return !this.#isOpen && this.#imageEnd.isEnded;
  }

  /** Undefined unless the snapshot is persistent and the area is awake. */
  get journal(): AreaJournal | undefined {
    return this.#io?.journal;
  }

  /** The area's counters. @param engine the engine's counters now */
  counters(engine: ReturnType<TrackerEngine["stats"]["snapshot"]>): AreaCounters {
    return this.#isOpen ? { ...this.#counter.snapshot(engine), id: this.id } : NO_AREA;
  }

  // ---- requests of the main thread ----

  /** The stores are open. */
  wake(setup: WakingArea): void {
    const sleeping = this.#sleeping;
    assert(sleeping !== undefined, "the area does not sleep");
    const io = openIo(this.#host, setup, this.#mapFile);
    this.#io = io;
    this.#sleeping = undefined;
    // The engine reports a loss once per area, and did so in the earlier daemon, to another journal.
    if (this.map.faultErrno !== 0) this.noteLost();
    sleeping.begin(io);
  }

  grant({ firstSlot, count, errno, isUpdate }: GrantMessage): void {
    if (!this.#isOpen) return;
    if (isUpdate === true) this.diffArea.updateDenial(errno);
    else if (count > 0) this.diffArea.grantSlots(firstSlot, count);
    else this.#freed.reuse(1, () => this.#deny(errno));
    faultPoint("slots.granted");
  }

  /** Other areas are short of slots: half of the unused ones go back to the stores. */
  giveBackSlots(): void {
    if (!this.#isOpen || this.#freed.hasKept) return;
    const extents: number[] = [];
    this.diffArea.giveBackSlots((firstSlot, count) => extents.push(firstSlot, count));
    if (extents.length === 0) return;
    const { tracker, notify } = this.#host;
    notify({ notice: "returned", tracker, area: this.id, extents });
  }

  /** Ends copy-on-write; calls back when nothing uses the area any more. */
  drop(onClosed: () => void): void {
    if (!this.#drop.begin(onClosed)) return;
    this.noteLost();
    this.#host.engine.dropArea();
    this.#sleeping?.giveUp();
    this.#sleeping = undefined;
  }

  /** Writes are not copied from now on: a later recovery must not trust the area's journal. */
  noteLost(): void {
    if ((this.journal ?? this.#sleeping) === undefined) return;
    this.#host.gate?.journal.noteAreaLost(this.id);
  }

  dropJournal(): void {
    this.noteLost();
    this.journal?.drop();
  }

  /**
   * Closes the area, after drop(), endNbd() and the end of the image's queue. Returns whether I/O is late: it keeps the
   * memory and files that it needs until the notice "areaIdle".
   */
  close(): boolean {
    if (!this.#isOpen) return this.#isLate;
    this.#isOpen = false;
    this.#freed.clear();
    this.lostRanges.use(undefined);
    const onIdle = (): void => {
      this.#isLate = false;
      reportIdle(this.#host, this.id);
    };
    this.#isLate = !(this.#io?.close(onIdle) ?? true);
    this.#mapFile.close();
    this.#io = undefined;
    this.#sleeping = undefined;
    this.#drop.done();
    return this.#isLate;
  }

  openImage(start: DeviceQueueStart, memory?: QueueMemory): void {
    const { reactor, engine, gate, imageDepth } = this.#host;
    assert(this.#imageEnd.isEnded, "the area has an image already");
    assert(start.queueDepth <= imageDepth, "the image has more tags than its engine");
    const io = this.#io;
    assert(io !== undefined, "an image needs an area that is awake");
    const onEnd = (): void => {
      this.#imageQueue = undefined;
      this.#imageEnd.end();
    };
    const onError = (error: unknown): void => this.#reportError(error);
    const served = reactor.attempt(() => makeQueue(reactor, start, onEnd, onError, memory));
    const { queue } = served;
    this.#imageQueue = served;
    io.imageQueue = queue;
    const target = imageTarget(queue, engine, gate, () => this.#isOpen);
    startQueue(served, target, this.#imageEnd);
  }

  /** Calls back at the end of the image; ends it unless its device does that. */
  readonly awaitImageEnd = (onEnd: () => void): void => {
    this.#imageEnd.await(onEnd);
    this.#imageQueue?.end();
  };

  /** Connections of clients that the image has instead of a device. */
  get imageConnections(): number {
    return this.#imageQueue?.connections ?? 0;
  }

  /** Serves a connection to the image. @param params as a client sees it */
  serveNbd(
    params: DeviceParams,
    connection: NbdConnection,
    done: (isServed: boolean) => void,
  ): void {
    const adopt = this.#imageQueue?.adopt;
    if (!this.#isOpen || this.#io === undefined) done(false);
    else if (adopt !== undefined) done(adopt(connection));
    else this.#nbd.serve(params, connection, done);
  }

  /** Ends the NBD connections of the image; calls back when none of their requests is in flight. */
  endNbd(onEnd: () => void): void {
    this.#nbd.end(onEnd);
  }

  // ---- questions of the engine ----

  submitCopy(copy: number): void {
    if (this.#sleeping !== undefined) this.#sleeping.add(copy);
    else (this.#io as AreaIo).submitCopy(copy);
  }

  submitRun(run: number): void {
    (this.#io as AreaIo).submitRun(run);
  }

  /** The tracker's journal has recorded what a request of the image will change. */
  imageAdmitted(tag: number): void {
    if (this.#isOpen) this.#host.engine.submitImage(tag);
    else this.#imageQueue?.queue.complete(tag, -EIO);
  }

  completeImage(tag: number, result: number): void {
    const { image } = this.#host.engine;
    this.imageCounter.count(image.op[tag], image.lengthBytes, tag, result);
    if (image.op[tag] === RequestOp.DISCARD && result === 0) {
      this.journal?.recordDiscard(image, tag, this.map);
    }
    const { imageDepth } = this.#host;
    if (tag < imageDepth) (this.#imageQueue as ServedQueue).queue.complete(tag, result);
    else (this.#nbdQueue as RequestQueue).complete(tag - imageDepth, result);
  }

  requestSlots(wanted: number): void {
    faultPoint("slots.asked");
    const { tracker, notify } = this.#host;
    this.#freed.reuse(wanted, () => notify({ notice: "slots", tracker, area: this.id, wanted }));
  }

  requestMapSlice(slice: number): void {
    this.#mapFile.allocate(slice, this.diffArea);
    this.#host.ioBase.ticker.start();
  }

  /** A tick of the bound of I/O. True while the map waits for memory. */
  tickMap(): boolean {
    return this.#mapFile.tick();
  }

  freeSlot(slot: number): void {
    this.#freed.add(slot, this.journal !== undefined);
  }

  onWritesBlocked(): void {
    if (!this.#isOpen || !this.#ticker.start(this.diffArea)) return;
    this.#host.notify({ notice: "blocked", tracker: this.#host.tracker, area: this.id });
  }

  onFault(errno: number): void {
    this.noteLost();
    this.#host.notify({ notice: "fault", tracker: this.#host.tracker, area: this.id, errno });
  }

  onCopyLate(copy: number): void {
    this.#io?.setCopyLate(copy);
  }

  onRunLate(run: number): void {
    this.#io?.setRunLate(run);
  }

  onStoreHung(store: number): void {
    const { tracker, notify } = this.#host;
    notify({ notice: "storeHung", tracker, area: this.id, store });
  }

  onStoreAnswered(store: number): void {
    const { tracker, notify } = this.#host;
    this.#freed.offer();
    notify({ notice: "storeAnswered", tracker, area: this.id, store });
  }

  /** Nothing in flight uses the area any more. */
  onClosed(): void {
    this.#drop.done();
  }

  #openNbdTarget(queue: RequestQueue): Target {
    const { engine, imageDepth } = this.#host;
    const io = this.#io;
    assert(io !== undefined, "an image needs an area that is awake");
    io.nbdQueue = queue;
    this.#nbdQueue = queue;
    return nbdImageTarget(queue, engine, imageDepth, () => this.#isOpen);
  }

  #reportError(error: unknown): void {
    const { tracker, notify } = this.#host;
    notify({ notice: "error", message: `tracker ${tracker}: ${errorText(error)}` });
  }

  #deny(errno: number): void {
    if (this.#isOpen) this.diffArea.denySlots(errno);
  }
}
