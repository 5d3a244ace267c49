// One tracked device of the simulation: the original, the engine that tracks it, and the models that
// say what must come out. It is the engine's host; it checks every question the engine asks.
import {
  BufferOwner,
  CbtMap,
  DiffArea,
  DiffAreaMap,
  type EngineIo,
  Geometry,
  RequestOp,
  TrackerEngine,
} from "@blksnap/engine";
import { CbtModel } from "./cbt-model.js";
import { garbage, sectorValue, ZERO } from "./content.js";
import { ImageModel, type ImageRead } from "./image-model.js";
import { LossModel } from "./loss-model.js";
import type { Random } from "./random.js";
import { type IoKind, SimIo } from "./sim-io.js";
import type { SimStore } from "./store.js";
import { require } from "./violation.js";

export const FRONT_DEPTH = 8;
export const IMAGE_DEPTH = 6;
export const FrontState = { FREE: 0, SUBMITTED: 1, ISSUED: 2, DONE: 3 } as const;

const zero = () => ZERO;

export interface ImageRequest {
  read: ImageRead | null;
  version: number;
  /** Something happened that it may fail for. */
  excused: boolean;
}

/** What a device needs from the world around it. */
export interface SimWorld {
  readonly random: Random;
  readonly store: SimStore;
  trace(text: () => string): void;
  /** Called by every callback: where a crash in the middle of an event may strike. */
  tick(): void;
  addIo(io: SimIo): void;
  ios(): readonly SimIo[];
  /** Changes an engine right after it was made: where a test plants its faults. */
  readonly sabotage: (engine: TrackerEngine) => void;
}

export interface SimShape {
  chunkShift: number;
  blockShift: number;
  capacitySectors: number;
  cbtBlockShift: number;
  copiesMax: number;
  runsMax: number;
  windowBlocks: number;
}

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
  readonly frontWindows: Uint32Array[];
  readonly imageWindows: Uint32Array[];
  readonly imageBuffers: Uint32Array[];
  readonly frontState: Uint8Array = new Uint8Array(FRONT_DEPTH);
  readonly frontVersion: Uint32Array = new Uint32Array(FRONT_DEPTH);
  readonly imageRequests: (ImageRequest | null)[] = new Array(IMAGE_DEPTH).fill(null);
  readonly losses: LossModel;
  readonly badBlocks: Set<number> = new Set();

  engine: TrackerEngine;
  cbt: CbtMap;
  area: DiffArea | null = null;
  areaBuffer: ArrayBuffer | null = null;
  /** What the image must show; null without a snapshot. */
  model: ImageModel | null = null;
  /** The same between the instant of the take and this device's turn. */
  instant: ImageModel | null = null;
  held = false;
  drained = false;
  dropping = false;
  slotsAsked = 0;
  faultsTold = 0;
  lastImageResult = 0;

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
    this.cbtBuffer = new ArrayBuffer(CbtMap.byteLength(capacityBytes, shape.cbtBlockShift));
    const generation = new Uint8Array(16).fill(number + 1);
    this.cbt = CbtMap.create(this.cbtBuffer, {
      capacityBytes,
      blockShift: shape.cbtBlockShift,
      generation,
    });
    this.cbtModel = new CbtModel(this.cbt.blockCount, shape.cbtBlockShift);
    const soiled = (length: number) => new Uint32Array(length).fill(garbage());
    const window = shape.windowBlocks * this.blockSectors;
    this.frontWindows = Array.from({ length: FRONT_DEPTH }, () => soiled(window));
    this.imageWindows = Array.from({ length: IMAGE_DEPTH }, () => soiled(2 * this.blockSectors));
    this.imageBuffers = Array.from({ length: IMAGE_DEPTH }, () => soiled(this.disk.length));
    this.engine = this.makeEngine();
  }

  // What the world does with the device.

  submitFront(tag: number, op: number, first: number, count: number, version: number): void {
    const { front } = this.engine;
    front.op[tag] = op;
    front.offsetBytes[tag] = first * 512;
    front.lengthBytes[tag] = count * 512;
    this.frontVersion[tag] = version;
    this.frontState[tag] = FrontState.SUBMITTED;
    if (this.isWriteLike(tag)) this.cbtModel.submitted(first * 512, count * 512);
    this.permitDenied();
    this.engine.submitFront(tag);
  }

  submitImage(tag: number, op: number, first: number, count: number, version: number): void {
    const { image } = this.engine;
    image.op[tag] = op;
    image.offsetBytes[tag] = first * 512;
    image.lengthBytes[tag] = count * 512;
    const request: ImageRequest = { read: null, version, excused: false };
    this.imageRequests[tag] = request;
    const { model } = this;
    const inDevice = count > 0 && first + count <= this.disk.length;
    if (model === null || !inDevice) request.excused = true;
    else if (op === RequestOp.READ) request.read = model.beginRead(first, count);
    else if (op === RequestOp.WRITE) {
      model.beginWrite(first, count, (sector) => sectorValue(version, sector));
      this.cbtModel.both(first * 512, count * 512);
    } else if (op === RequestOp.DISCARD) {
      this.forEachWholeChunk(first, count, (_, from, length) =>
        model.beginWrite(from, length, zero),
      );
    }
    this.fillImageBuffer(tag);
    this.engine.submitImage(tag);
  }

  attach(): void {
    this.areaBuffer = new ArrayBuffer(DiffAreaMap.byteLength(this.geometry));
    const map = DiffAreaMap.create(this.areaBuffer, this.geometry);
    this.area = this.makeArea(map);
    this.engine.attachArea(this.area);
  }

  hold(): void {
    this.held = true;
    this.drained = false;
    this.engine.hold();
  }

  /** The instant of the take, for this device: what the image must show from now on. */
  freeze(): void {
    require(this.writesInFlight() === 0, () => `device ${this.number} not drained at the take`);
    this.instant = new ImageModel(this.disk);
    this.losses.clear();
    this.faultsTold = 0;
  }

  switchAndRelease(): void {
    this.held = false;
    this.model = this.instant;
    this.cbtModel.switch();
    for (let tag = 0; tag < FRONT_DEPTH; tag++) {
      if (this.frontState[tag] === FrontState.SUBMITTED && this.isWriteLike(tag)) {
        const { front } = this.engine;
        this.cbtModel.submitted(front.offsetBytes[tag], front.lengthBytes[tag]);
      }
    }
    this.permitDenied();
    this.engine.switchAndRelease();
  }

  release(): void {
    this.held = false;
    this.permitDenied();
    this.engine.release();
  }

  drop(): void {
    this.dropping = true;
    this.model = null;
    for (const request of this.imageRequests) if (request !== null) request.excused = true;
    this.engine.dropArea();
  }

  /** A new process takes over: what the old one had in flight is gone, its maps remain. */
  restart(keepArea: boolean): void {
    const frontOld = this.engine.front;
    const imageOld = this.engine.image;
    this.cbt = CbtMap.open(this.cbtBuffer, { owner: true });
    this.engine = this.makeEngine();
    this.held = false;
    this.drained = false;
    this.dropping = false;
    this.slotsAsked = 0;
    this.faultsTold = 0;
    this.area = null;
    const used = new Set<number>();
    if (keepArea) {
      const map = DiffAreaMap.open(this.areaBuffer!);
      this.area = this.makeArea(map);
      this.area.forEachUsedSlot((slot) => {
        require(!used.has(slot), () => `slot ${slot} is in the map twice`);
        used.add(slot);
      });
    } else {
      this.model = null;
    }
    this.store.releaseAll(this.number, used);
    if (this.area !== null) this.engine.resumeArea(this.area);
    for (let tag = 0; tag < FRONT_DEPTH; tag++) {
      if (this.frontState[tag] === FrontState.FREE) continue;
      const first = frontOld.offsetBytes[tag] / 512;
      const count = frontOld.lengthBytes[tag] / 512;
      this.submitFront(tag, frontOld.op[tag], first, count, this.frontVersion[tag]);
    }
    for (let tag = 0; tag < IMAGE_DEPTH; tag++) this.replayImage(tag, imageOld);
  }

  isWriteLike(tag: number): boolean {
    const op = this.engine.front.op[tag];
    return op !== RequestOp.READ && op !== RequestOp.FLUSH;
  }

  writesInFlight(): number {
    return this.world
      .ios()
      .filter((io) => io.device === this && io.kind === "original" && io.isWrite).length;
  }

  /** While slots are denied, blocks that writers need in chunks without one may be lost. */
  permitDenied(): void {
    const { area, engine } = this;
    if (area === null || this.dropping || area.slots.deniedErrno === 0) return;
    for (const request of this.imageRequests) if (request !== null) request.excused = true;
    for (let tag = 0; tag < FRONT_DEPTH; tag++) {
      if (this.frontState[tag] !== FrontState.SUBMITTED || !this.isWriteLike(tag)) continue;
      const { offsetBytes, lengthBytes } = engine.front;
      this.losses.permitDenied(offsetBytes[tag] / 512, lengthBytes[tag] / 512, area);
    }
  }

  // What the engine asks.

  submitOriginal(tag: number): void {
    this.world.tick();
    require(this.frontState[tag] === FrontState.SUBMITTED, () => `front ${tag} issued twice`);
    this.frontState[tag] = FrontState.ISSUED;
    if (this.isWriteLike(tag)) {
      require(!this.held, () => `front ${tag} issued while writes are held`);
      const { front } = this.engine;
      this.cbtModel.issued(front.offsetBytes[tag], front.lengthBytes[tag], this.cbtBuffer);
    }
    this.add("original", tag);
  }

  completeFront(tag: number, result: number): void {
    this.world.tick();
    const failed = result < 0;
    const issued = this.frontState[tag] === FrontState.DONE;
    require(issued || failed, () => `front ${tag} completed without being issued`);
    require(!failed || issued, () => `front ${tag} refused with ${result}`);
    this.frontState[tag] = FrontState.FREE;
    this.world.trace(() => `dev${this.number} front ${tag} ends with ${result}`);
  }

  completeImage(tag: number, result: number): void {
    this.world.tick();
    this.world.trace(() => `dev${this.number} image ${tag} ends with ${result}`);
    const request = this.imageRequests[tag];
    require(request !== null, () => `image ${tag} completed twice`);
    this.lastImageResult = result;
    this.imageRequests[tag] = null;
    const { image } = this.engine;
    const op = image.op[tag];
    const first = image.offsetBytes[tag] / 512;
    const count = image.lengthBytes[tag] / 512;
    const ok = result >= 0;
    if (this.model === null) {
      require(!ok || op === RequestOp.FLUSH, () => `image ${tag} served without a snapshot`);
      return;
    }
    const bytes = op === RequestOp.READ || op === RequestOp.WRITE ? count * 512 : 0;
    require(!ok || result === bytes, () => `image ${tag} ended with ${result}, expected ${bytes}`);
    const noSlots = op === RequestOp.WRITE && this.area!.slots.deniedErrno !== 0;
    const excused = request!.excused || noSlots || this.losses.touches(first, count);
    require(ok || excused, () => `image ${tag} failed with ${result} for no reason`);
    if (op === RequestOp.READ && request!.read !== null) {
      this.model.endRead(request!.read, ok ? this.imageBuffers[tag] : null);
    } else if (op === RequestOp.WRITE && !(count === 0 || first + count > this.disk.length)) {
      const { version } = request!;
      this.model.endWrite(first, count, (sector) => sectorValue(version, sector), ok);
      if (ok) this.losses.heal(first, count, this.area!);
    } else if (op === RequestOp.DISCARD && ok) {
      this.endDiscard(first, count);
    }
  }

  submitCopy(id: number): void {
    this.world.tick();
    const { copies } = this.engine;
    const window =
      copies.bufferOwner[id] === BufferOwner.FRONT ? this.frontWindows : this.imageWindows;
    const end = copies.bufferOffsetBytes[id] + copies.lengthBytes[id];
    require(copies.lengthBytes[id] > 0 && end <= window[copies.bufferTag[id]].length * 512, () =>
      `copy ${id} leaves its window: ends at ${end}`);
    this.add("copy", id);
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

  freeSlot(slot: number): void {
    this.world.tick();
    for (const io of this.world.ios()) {
      const uses = io.device === this && io.slot === slot && io.usesSlot();
      require(!uses, () => `slot ${slot} freed while ${io.kind} ${io.id} uses it`);
    }
    this.store.release(slot, this.number);
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
    require(errno > 0 && this.faultsTold === 0, () => "area fault told twice");
    this.faultsTold++;
  }

  onAreaClosed(): void {
    this.world.tick();
    require(this.dropping, () => "area closed without being dropped");
    for (const io of this.world.ios()) {
      require(io.device !== this || io.kind === "original", () => `area closed under ${io.kind}`);
    }
    this.dropping = false;
    this.area = null;
    this.areaBuffer = null;
    this.slotsAsked = 0;
    this.store.releaseAll(this.number, new Set());
  }

  private makeEngine(): TrackerEngine {
    const { copiesMax, runsMax, windowBlocks } = this.shape;
    const engine = new TrackerEngine(this.geometry, this, {
      frontDepth: FRONT_DEPTH,
      imageDepth: IMAGE_DEPTH,
      copyWindowBytes: windowBlocks * this.geometry.blockBytes,
      copiesMax,
      runsMax,
      cbt: this.cbt,
    });
    this.world.sabotage(engine);
    return engine;
  }

  private makeArea(map: DiffAreaMap): DiffArea {
    return new DiffArea(map, { lowWaterSlots: 2, wantedSlots: 4, extentsMax: 32 });
  }

  private add(kind: IoKind, id: number): void {
    const io = new SimIo(kind, this, id, this.world.random);
    const name = kind === "original" ? `front ${id}` : `${kind} ${id}`;
    require(io.first >= 0 && io.first + io.sectors <= this.disk.length, () =>
      `${name} goes beyond the device: ${io.first}+${io.sectors}`);
    this.world.addIo(io);
  }

  private fillImageBuffer(tag: number): void {
    const { image } = this.engine;
    const first = image.offsetBytes[tag] / 512;
    const count = image.lengthBytes[tag] / 512;
    const buffer = this.imageBuffers[tag];
    const isWrite = image.op[tag] === RequestOp.WRITE;
    const version = this.imageRequests[tag]!.version;
    const soil = garbage();
    for (let index = 0; index < count && index < buffer.length; index++) {
      buffer[index] = isWrite ? sectorValue(version, first + index) : soil;
    }
  }

  private replayImage(tag: number, old: TrackerEngine["image"]): void {
    const request = this.imageRequests[tag];
    if (request === null) return;
    if (this.model === null) request.excused = true;
    const { image } = this.engine;
    image.op[tag] = old.op[tag];
    image.offsetBytes[tag] = old.offsetBytes[tag];
    image.lengthBytes[tag] = old.lengthBytes[tag];
    this.fillImageBuffer(tag);
    this.engine.submitImage(tag);
  }

  private forEachWholeChunk(
    first: number,
    count: number,
    visit: (chunk: number, from: number, length: number) => void,
  ): void {
    const last = Math.min(
      Math.floor((first + count) / this.chunkSectors),
      this.geometry.chunkCount - 1,
    );
    for (let chunk = Math.ceil(first / this.chunkSectors); chunk <= last; chunk++) {
      const from = chunk * this.chunkSectors;
      const length = this.geometry.bytesInChunk(chunk) / 512;
      if (from + length <= first + count) visit(chunk, from, length);
    }
  }

  /** A discard ended: its chunks are zero where they were released, and as before elsewhere. */
  private endDiscard(first: number, count: number): void {
    const model = this.model!;
    const map = this.area!.map;
    this.forEachWholeChunk(first, count, (chunk, from, length) => {
      if (map.isReleased(chunk) && map.slotOf(chunk) < 0) model.endWrite(from, length, zero, true);
      else model.cancelWrite(from, length, 0);
    });
  }
}
