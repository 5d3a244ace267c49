// One tracked device of the simulation: the original, the engine that tracks it, and the models of what it must show.
// It is the engine's host, and checks every question of the engine.
import {
  CbtMap,
  CopyMode,
  DiffArea,
  type DiffAreaMap,
  type EngineIo,
  Geometry,
  RequestFlag,
  RequestOp,
  TrackerEngine,
} from "@blksnap/engine";
import { usedSlots } from "../whole-maps.js";
import { CbtModel } from "./cbt-model.js";
import { sectorValue } from "./content.js";
import { FRONT_DEPTH, FrontState } from "./front-state.js";
import { ImageModel } from "./image-model.js";
import { IMAGE_DEPTH, ImageSide } from "./image-side.js";
import { KeptModel } from "./kept-model.js";
import { LATE_TICKS, LateModel } from "./late-model.js";
import { LossModel } from "./loss-model.js";
import { BLOCKED_TICKS_MAX, OverflowModel } from "./overflow-model.js";
import { Permissions } from "./permissions.js";
import { Sequence } from "./sequence.js";
import { type IoKind, SimIo } from "./sim-io.js";
import { newMap, openMap } from "./sim-maps.js";
import { SimMemory } from "./sim-memory.js";
import { SimWindows } from "./sim-windows.js";
import type { SimShape, SimWorld } from "./sim-world.js";
import { type SimStore, STORE_SHIFT, STORES, WATER_MARKS } from "./store.js";
import { require } from "./violation.js";

export class SimDevice implements EngineIo {
  readonly number: number;
  readonly world: SimWorld;
  readonly store: SimStore;
  readonly shape: SimShape;
  readonly geometry: Geometry;
  readonly chunkSectors: number;
  readonly blockSectors: number;
  readonly disk: Uint32Array;
  readonly cbtBuffer: ArrayBuffer;
  readonly cbtModel: CbtModel;
  readonly windows: SimWindows;
  readonly image: ImageSide;
  readonly frontState: Uint8Array = new Uint8Array(FRONT_DEPTH);
  readonly frontVersion: Uint32Array = new Uint32Array(FRONT_DEPTH);
  /** The CBT number that the request may have left in the map, or 0. */
  readonly frontMark: Uint8Array = new Uint8Array(FRONT_DEPTH);
  readonly losses: LossModel;
  readonly overflow: OverflowModel;
  readonly kept: KeptModel;
  readonly badBlocks: Set<number> = new Set();
  readonly permissions: Permissions = new Permissions(this);
  readonly late: LateModel = new LateModel(this);
  readonly sequence: Sequence = new Sequence(this);
  readonly memory: SimMemory = new SimMemory(this);

  engine: TrackerEngine;
  cbt: CbtMap;
  area: DiffArea | null = null;
  areaBuffer: ArrayBuffer | null = null;
  held = false;
  drained = false;
  dropping = false;
  slotsAsked = 0;
  reportedFaults = 0;

  constructor(number: number, world: SimWorld, shape: SimShape) {
    this.number = number;
    this.world = world;
    this.store = world.store;
    this.shape = shape;
    const capacityBytes = shape.capacitySectors * 512;
    const { chunkShift, blockShift } = shape;
    this.geometry = new Geometry({ capacityBytes, logicalBlockBytes: 512, chunkShift, blockShift });
    this.chunkSectors = this.geometry.chunkBytes / 512;
    this.blockSectors = this.geometry.blockBytes / 512;
    this.disk = new Uint32Array(shape.capacitySectors);
    for (let sector = 0; sector < this.disk.length; sector++) {
      this.disk[sector] = sectorValue(1, sector);
    }
    this.losses = new LossModel(this.geometry);
    this.overflow = new OverflowModel(shape.overflow, FRONT_DEPTH);
    this.kept = new KeptModel(this);
    this.cbtBuffer = new ArrayBuffer(CbtMap.byteLength(capacityBytes, shape.cbtBlockShift));
    const generation = new Uint8Array(16).fill(number + 1);
    this.cbt = CbtMap.create(this.cbtBuffer, {
      capacityBytes,
      blockShift: shape.cbtBlockShift,
      generation,
    });
    this.cbtModel = new CbtModel(this.cbt.blockCount, shape.cbtBlockShift);
    this.windows = new SimWindows(this.geometry, shape.windowBlocks);
    this.image = new ImageSide(this);
    this.engine = this.makeEngine();
  }

  // What the simulation does with the device.

  submitFront(tag: number, op: number, first: number, count: number, version: number): void {
    const { front } = this.engine;
    front.op[tag] = op;
    front.flags[tag] = version % 2 === 0 ? RequestFlag.NOUNMAP : 0;
    front.offsetBytes[tag] = first * 512;
    front.lengthBytes[tag] = count * 512;
    this.frontVersion[tag] = version;
    this.frontState[tag] = FrontState.SUBMITTED;
    this.overflow.submitted(tag);
    const isKept = this.kept.keeps(tag);
    const changes = this.isWriteLike(tag) && !isKept;
    this.frontMark[tag] = changes ? this.cbtModel.submitted(first * 512, count * 512) : 0;
    this.permissions.give();
    this.engine.submitFront(tag);
    const waits = isKept && this.frontState[tag] !== FrontState.FREE;
    require(!waits, () => `front ${tag} waits, a discard that is only to be kept back`);
  }

  attach(): void {
    this.windows.begin();
    this.area = this.makeArea(newMap(this));
    this.memory.begin(!this.shape.isSparse);
    this.engine.attachArea(this.area);
  }

  hold(): void {
    this.held = true;
    this.drained = false;
    this.engine.hold();
  }

  /** The instant of the take for this device: the image must show it from now on. */
  freeze(): void {
    require(this.writesInFlight() === 0, () => `device ${this.number} not drained at the take`);
    this.image.instant = new ImageModel(this.disk);
    this.losses.clear();
    this.overflow.begin();
    this.reportedFaults = 0;
  }

  switchAndRelease(): void {
    this.held = false;
    this.image.model = this.image.instant;
    this.cbtModel.switch(this.disk);
    for (let tag = 0; tag < FRONT_DEPTH; tag++) {
      // A discard, too: a write before it may lose the blocks for which it would be kept back.
      if (this.frontState[tag] === FrontState.SUBMITTED && this.isWriteLike(tag)) {
        const { front } = this.engine;
        const mark = this.cbtModel.submitted(front.offsetBytes[tag], front.lengthBytes[tag]);
        this.frontMark[tag] ||= mark;
      }
    }
    this.permissions.give();
    this.engine.switchAndRelease();
  }

  release(): void {
    this.held = false;
    this.permissions.give();
    this.engine.release();
  }

  drop(): void {
    this.dropping = true;
    this.image.model = null;
    this.image.excuseAll();
    this.engine.dropArea();
  }

  /** A new process takes over: the I/O in flight of the old one is gone, its maps remain. */
  restart(keepArea: boolean): void {
    const frontOld = this.engine.front;
    const imageOld = this.engine.image;
    this.cbt = CbtMap.open(this.cbtBuffer, { owner: true });
    this.engine = this.makeEngine();
    this.held = false;
    this.drained = false;
    this.dropping = false;
    this.slotsAsked = 0;
    this.reportedFaults = 0;
    this.late.restart();
    this.memory.restart();
    this.overflow.begin();
    this.kept.clear();
    this.windows.restart();
    this.area = null;
    const used = new Set<number>();
    if (keepArea) {
      const map = openMap(this);
      this.area = this.makeArea(map);
      for (const [slot] of usedSlots(map)) {
        require(!used.has(slot), () => `slot ${slot} is in the map twice`);
        used.add(slot);
      }
    } else {
      this.image.model = null;
    }
    this.store.releaseAll(this.number, used);
    if (this.area !== null) this.engine.resumeArea(this.area);
    for (let tag = 0; tag < FRONT_DEPTH; tag++) {
      if (this.frontState[tag] === FrontState.FREE) continue;
      // Its user ended with the process.
      const isIssued = this.frontState[tag] !== FrontState.SUBMITTED;
      if (isIssued && this.shape.isCold && this.world.random.oneIn(4)) {
        this.frontState[tag] = FrontState.FREE;
        continue;
      }
      const first = frontOld.offsetBytes[tag] / 512;
      const count = frontOld.lengthBytes[tag] / 512;
      this.submitFront(tag, frontOld.op[tag], first, count, this.frontVersion[tag]);
    }
    for (let tag = 0; tag < IMAGE_DEPTH; tag++) this.image.replay(tag, imageOld);
  }

  isWriteLike(tag: number): boolean {
    const op = this.engine.front.op[tag];
    return op !== RequestOp.READ && op !== RequestOp.FLUSH;
  }

  ios(): SimIo[] {
    return this.world.ios().filter((io) => io.device === this);
  }

  writesInFlight(): number {
    return this.ios().filter((io) => io.isOfOriginal && io.isWrite).length;
  }

  /** A tick for blocked writes. */
  tickArea(): void {
    const { area } = this;
    if (area === null || area.blockedWrites === 0) return;
    this.overflow.tick(this.permissions.waitingWrites());
    this.permissions.give();
    area.tick();
  }

  // The engine's questions.

  submitOriginal(tag: number): void {
    this.world.tick();
    require(this.frontState[tag] === FrontState.SUBMITTED, () => `front ${tag} issued twice`);
    this.frontState[tag] = FrontState.ISSUED;
    if (this.isWriteLike(tag)) {
      require(!this.held, () => `front ${tag} issued while writes are held`);
      const { front } = this.engine;
      this.cbtModel.issued(front.offsetBytes[tag], front.lengthBytes[tag], this.cbtBuffer);
    }
    this.kept.issued(tag);
    this.add("original", tag);
  }

  submitKept(): void {
    const { offsetBytes, lengthBytes } = this.engine.keptSlice;
    this.cbtModel.marked(offsetBytes[0], lengthBytes[0], () => this.world.tick());
    this.kept.sent(offsetBytes[0] / 512, lengthBytes[0] / 512);
    this.cbtModel.issued(offsetBytes[0], lengthBytes[0], this.cbtBuffer);
    this.add("kept", 0);
  }

  completeFront(tag: number, result: number): void {
    this.world.tick();
    const failed = result < 0;
    const issued = this.frontState[tag] === FrontState.DONE;
    const kept = !issued && this.kept.keeps(tag);
    require(issued || failed || kept, () => `front ${tag} completed without being issued`);
    if (kept) this.kept.kept(tag);
    const permitted = issued || this.overflow.mayRefuse(tag, result);
    require(!failed || permitted, () => `front ${tag} refused with ${result}`);
    if (!issued && permitted) {
      // Its marks stay: the map may say "changed" too often.
      const { front } = this.engine;
      this.cbtModel.issued(front.offsetBytes[tag], front.lengthBytes[tag], this.cbtBuffer);
    }
    this.frontState[tag] = FrontState.FREE;
    this.world.trace(() => `dev${this.number} front ${tag} ends with ${result}`);
  }

  completeImage(tag: number, result: number): void {
    this.world.tick();
    this.image.complete(tag, result);
  }

  submitCopy(id: number): void {
    this.world.tick();
    const { copies } = this.engine;
    const window = this.windows.of(copies, id);
    const end = copies.bufferOffsetBytes[id] + copies.lengthBytes[id];
    require(copies.lengthBytes[id] > 0 && end <= window.length * 512, () =>
      `copy ${id} leaves its window: ends at ${end}`);
    this.add("copy", id);
    if (copies.mode[id] === CopyMode.BEHIND) this.engine.onCopyRead(id);
  }

  submitRun(id: number): void {
    this.world.tick();
    this.add("run", id);
  }

  requestSlots(wanted: number): void {
    this.world.tick();
    require(this.slotsAsked === 0, () => "slots asked for twice");
    this.slotsAsked = wanted;
  }

  readonly requestMapSlice = (slice: number): void => this.memory.ask(slice);

  freeSlot(slot: number): void {
    this.world.tick();
    for (const io of this.world.ios()) {
      const uses = io.device === this && io.slot === slot && io.usesSlot();
      require(!uses, () => `slot ${slot} freed while ${io.kind} ${io.id} uses it`);
    }
    this.store.release(slot, this.number);
  }

  onWritesBlocked(): void {
    this.world.tick();
    require(this.area?.blockedWrites === 1, () => "told of blocked writes that are known");
  }

  onDrained(): void {
    this.world.tick();
    require(this.held, () => "drained without a hold");
    require(!this.drained, () => "drained twice");
    require(this.writesInFlight() === 0, () => "drained with writes in flight");
    this.drained = true;
  }

  onAreaFault(errno: number): void {
    this.world.tick();
    require(errno > 0 && this.reportedFaults === 0, () => "area fault told twice");
    this.reportedFaults++;
  }

  onAreaClosed(): void {
    this.world.tick();
    require(this.dropping, () => "area closed without being dropped");
    this.late.areaClosed();
    this.dropping = false;
    this.area = null;
    this.areaBuffer = null;
    this.slotsAsked = 0;
    this.memory.begin(true);
    this.store.releaseAll(this.number, this.late.formerSlots);
  }

  onCopyLate(id: number): void {
    this.late.told("copy", id);
    this.windows.replace(this.engine.copies, id);
  }

  onRunLate(id: number): void {
    this.late.told("run", id);
    this.image.replaceBuffer(this.engine.runs.tag[id]);
  }

  onStoreHung(store: number): void {
    this.late.storeHangs(store);
  }

  onStoreAnswered(store: number): void {
    this.late.storeAnswers(store);
  }

  private makeEngine(): TrackerEngine {
    const { copiesMax, runsMax, windowBlocks } = this.shape;
    const engine = new TrackerEngine(this.geometry, this, {
      frontDepth: FRONT_DEPTH,
      imageDepth: IMAGE_DEPTH,
      copyWindowBytes: windowBlocks * this.geometry.blockBytes,
      copiesMax,
      runsMax,
      lateTicks: LATE_TICKS,
      cbt: this.cbt,
    });
    this.world.sabotage(engine);
    return engine;
  }

  private makeArea(map: DiffAreaMap): DiffArea {
    return new DiffArea(map, {
      ...WATER_MARKS,
      overflow: this.shape.overflow,
      blockedTicksMax: BLOCKED_TICKS_MAX,
      storeShift: STORE_SHIFT,
      storeCount: STORES,
    });
  }

  private add(kind: IoKind, id: number): void {
    const io = new SimIo(kind, this, id, this.world.random);
    const name = kind === "original" ? `front ${id}` : `${kind} ${id}`;
    this.late.asked(io);
    require(io.first >= 0 && io.first + io.sectors <= this.disk.length, () =>
      `${name} goes beyond the device: ${io.first}+${io.sectors}`);
    this.world.addIo(io);
  }
}
