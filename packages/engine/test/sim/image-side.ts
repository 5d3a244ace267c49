/** The image of one simulated device: requests in flight, their buffers, and what they must return. */
import { RequestOp, type RequestTable } from "@blksnap/engine";
import { garbage, sectorValue, ZERO } from "./content.js";
import type { ImageModel, ImageRead } from "./image-model.js";
import type { SimDevice } from "./sim-device.js";
import { require } from "./violation.js";

export const IMAGE_DEPTH = 6;
const zero = () => ZERO;

export interface ImageRequest {
  read: ImageRead | null;
  version: number;
  /** It may fail, because of something that happened. */
  excused: boolean;
  /** A store was cut meanwhile: parts that were written before may be lost. */
  isCut: boolean;
}

export class ImageSide {
  readonly requests: (ImageRequest | null)[] = new Array(IMAGE_DEPTH).fill(null);
  readonly buffers: Uint32Array[];
  /** What the image must show; null without a snapshot. */
  model: ImageModel | null = null;
  /** The model from the instant of the take until this device's turn. */
  instant: ImageModel | null = null;
  lastResult = 0;
  private readonly device: SimDevice;

  constructor(device: SimDevice) {
    this.device = device;
    const soiled = () => new Uint32Array(device.disk.length).fill(garbage());
    this.buffers = Array.from({ length: IMAGE_DEPTH }, soiled);
  }

  submit(tag: number, op: number, first: number, count: number, version: number): void {
    const { device, model } = this;
    const { image } = device.engine;
    image.op[tag] = op;
    image.offsetBytes[tag] = first * 512;
    image.lengthBytes[tag] = count * 512;
    const request: ImageRequest = { read: null, version, excused: false, isCut: false };
    this.requests[tag] = request;
    if (model === null || !this.isInDevice(first, count)) request.excused = true;
    else if (op === RequestOp.READ) request.read = model.beginRead(first, count);
    else if (op === RequestOp.WRITE) {
      model.beginWrite(first, count, (sector) => sectorValue(version, sector));
      device.cbtModel.both(first * 512, count * 512);
    } else if (op === RequestOp.DISCARD) {
      this.forEachWholeChunk(first, count, (_, from, length) => {
        model.beginWrite(from, length, zero);
      });
    }
    this.fillBuffer(tag);
    device.engine.submitImage(tag);
  }

  /** Submits the same request to the engine of a new process. */
  replay(tag: number, old: RequestTable): void {
    const request = this.requests[tag];
    if (request === null) return;
    if (this.model === null) request.excused = true;
    const { image } = this.device.engine;
    image.op[tag] = old.op[tag];
    image.offsetBytes[tag] = old.offsetBytes[tag];
    image.lengthBytes[tag] = old.lengthBytes[tag];
    this.fillBuffer(tag);
    this.device.engine.submitImage(tag);
  }

  complete(tag: number, result: number): void {
    const { device, model } = this;
    device.world.trace(() => `dev${device.number} image ${tag} ends with ${result}`);
    const request = this.requests[tag];
    require(request !== null, () => `image ${tag} completed twice`);
    this.lastResult = result;
    this.requests[tag] = null;
    const { image } = device.engine;
    const op = image.op[tag];
    const first = image.offsetBytes[tag] / 512;
    const count = image.lengthBytes[tag] / 512;
    const ok = result >= 0;
    if (model === null) {
      require(!ok || op === RequestOp.FLUSH, () => `image ${tag} served without a snapshot`);
      return;
    }
    const bytes = op === RequestOp.READ || op === RequestOp.WRITE ? count * 512 : 0;
    require(!ok || result === bytes, () => `image ${tag} ended with ${result}, expected ${bytes}`);
    const isDenied = device.area!.slots.deniedErrno !== 0 || device.memory.isRefused;
    const noSlots = op === RequestOp.WRITE && isDenied;
    const excused =
      request!.excused ||
      noSlots ||
      device.permissions.isShort ||
      device.losses.touches(first, count);
    require(ok || excused, () => `image ${tag} failed with ${result} for no reason`);
    if (op === RequestOp.READ && request!.read !== null) {
      model.endRead(request!.read, ok ? this.buffers[tag] : null);
    } else if (op === RequestOp.WRITE && this.isInDevice(first, count)) {
      const { version } = request!;
      model.endWrite(first, count, (sector) => sectorValue(version, sector), ok);
      if (ok && !request!.isCut) device.losses.heal(first, count, device.area!);
    } else if (op === RequestOp.DISCARD && ok) {
      this.endDiscard(model, first, count);
    }
  }

  /** Late I/O still uses the buffer of this tag: gives it another. */
  replaceBuffer(tag: number): void {
    this.buffers[tag] = new Uint32Array(this.device.disk.length).fill(garbage());
  }

  /** All requests in flight may fail. */
  excuseAll(): void {
    for (const request of this.requests) if (request !== null) request.excused = true;
  }

  /** As excuseAll(), because a store was cut. */
  noteCut(): void {
    this.excuseAll();
    for (const request of this.requests) if (request !== null) request.isCut = true;
  }

  private isInDevice(first: number, count: number): boolean {
    return count > 0 && first + count <= this.device.disk.length;
  }

  private fillBuffer(tag: number): void {
    const { image } = this.device.engine;
    const first = image.offsetBytes[tag] / 512;
    const count = image.lengthBytes[tag] / 512;
    const buffer = this.buffers[tag];
    const isWrite = image.op[tag] === RequestOp.WRITE;
    const { version } = this.requests[tag]!;
    const soil = garbage();
    for (let index = 0; index < count && index < buffer.length; index++) {
      buffer[index] = isWrite ? sectorValue(version, first + index) : soil;
    }
  }

  /** A discard ended: its chunks are zero where they were released, and as before elsewhere. */
  private endDiscard(model: ImageModel, first: number, count: number): void {
    const { map } = this.device.area!;
    this.forEachWholeChunk(first, count, (chunk, from, length) => {
      if (map.isReleased(chunk) && map.slotOf(chunk) < 0) model.endWrite(from, length, zero, true);
      else model.cancelWrite(from, length, ZERO);
    });
  }

  private forEachWholeChunk(
    first: number,
    count: number,
    visit: (chunk: number, from: number, length: number) => void,
  ): void {
    const { chunkSectors, geometry } = this.device;
    const last = Math.min(Math.floor((first + count) / chunkSectors), geometry.chunkCount - 1);
    for (let chunk = Math.ceil(first / chunkSectors); chunk <= last; chunk++) {
      const from = chunk * chunkSectors;
      const length = geometry.bytesInChunk(chunk) / 512;
      if (from + length <= first + count) visit(chunk, from, length);
    }
  }
}
