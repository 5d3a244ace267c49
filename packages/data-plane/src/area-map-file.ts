/**
 * The map of a diff area in its file, mapped into this process, and given memory slice by slice.
 *
 * ```
 *   a slice is asked for ─▶ fallocate of its entries ─▶ of its holes ─▶ the area is granted it
 *                                   └─ failed, or late ───┴──▶ the area is denied it
 * ```
 *
 * Requests for which io_uring had no memory or thread are retried as often as requests of a front.
 *
 * The kernel allocates on a thread of its own, while the reactor continues. That may take long: others may have to
 * write back memory to a disk that hangs. Writers wait for the bound of a store's I/O. After that, a write that needs
 * the slice is denied it at the next tick, and the kernel is not asked for it again until it has answered.
 */
import { type CopyRecords, type DiffArea, DiffAreaMap, isWholeMap } from "@blksnap/engine";
import { EINTR, ETIMEDOUT } from "@blksnap/errors";
import { uuidBytes } from "@blksnap/linux-block";
import { TRIES_MAX, TRIES_PAUSE_MS } from "@blksnap/ublk";
import {
  type CompletionHandler,
  FallocateMode,
  high32,
  isRingShort,
  low32,
  MappedMemory,
  prepareFallocate,
  type Reactor,
  SqeFlag,
  type Timer,
} from "@blksnap/uring";
import type { AreaId } from "./area-id.js";
import type { PlacesOfMap } from "./copy-places.js";
import { LATE_TICKS } from "./io-ticker.js";
import type { MapFileRef } from "./messages.js";
import type { NewMap } from "./new-map.js";

const NONE = -1;

/** A slice for which the kernel was asked. */
interface Pending {
  waitedTicks: number;
  /** The area waits for an answer. */
  isWanted: boolean;
  triesLeft: number;
  /** The part to ask for again: 0 or 1, or NONE. */
  waitingPart: number;
}

export class AreaMapFile implements CompletionHandler {
  readonly map: DiffAreaMap;
  /** Undefined if the map has no places. */
  readonly places: PlacesOfMap | undefined;
  readonly #reactor: Reactor;
  readonly #memory: MappedMemory;
  /** Both NONE for a map that has all its memory. */
  readonly #fileIndex: number;
  readonly #handlerId: number;
  readonly #pending = new Map<number, Pending>();
  #inFlight = 0;
  /** The pause before waiting parts are asked for again. */
  #pause: Timer | undefined;
  /** This object, and the users of its places. */
  #memoryUsers = 1;
  #area: DiffArea | undefined;

  /** Makes a new map in memory that is allocated. */
  static create(reactor: Reactor, map: NewMap, id: AreaId): AreaMapFile {
    const { fd, geometry, places } = map;
    return reactor.attempt(() => {
      const memory = map.handOver();
      reactor.noteTaken(() => memory.unmap());
      const { buffer } = memory;
      const made = DiffAreaMap.create(
        buffer,
        geometry,
        uuidBytes(id),
        isWholeMap(geometry),
        places,
      );
      return new AreaMapFile(reactor, fd, memory, made, true);
    });
  }

  /** Opens a map that an earlier process has left. */
  static open(reactor: Reactor, file: MapFileRef): AreaMapFile {
    const { fd, lengthBytes } = file;
    return reactor.attempt(() => {
      const memory = MappedMemory.file(fd, 0, lengthBytes);
      reactor.noteTaken(() => memory.unmap());
      return new AreaMapFile(reactor, fd, memory, DiffAreaMap.open(memory.buffer), false);
    });
  }

  private constructor(
    reactor: Reactor,
    fd: number,
    memory: MappedMemory,
    map: DiffAreaMap,
    isPopulated: boolean,
  ) {
    this.#memory = memory;
    this.map = map;
    this.places = map.copyRecords && this.#placesIn(map.copyRecords, isPopulated);
    const isWhole = isWholeMap(this.map.geometry);
    this.#fileIndex = isWhole ? NONE : reactor.addFile(fd);
    this.#handlerId = isWhole ? NONE : reactor.addHandler(this);
    this.#reactor = reactor;
  }

  /** Allocates memory for the slice; the answer goes to the area, unless the map is closed by then. */
  allocate(slice: number, area: DiffArea): void {
    this.#area = area;
    const late = this.#pending.get(slice);
    if (late !== undefined) {
      late.isWanted = true;
      return;
    }
    const pending = { waitedTicks: 0, isWanted: true, triesLeft: TRIES_MAX, waitingPart: NONE };
    this.#pending.set(slice, pending);
    this.#submit(slice, 0);
  }

  /** Call it eight times per bound of a store's I/O. Returns true while the area waits for an answer. */
  tick(): boolean {
    const area = this.#area;
    if (area === undefined) return false;
    let isAwaited = false;
    for (const [slice, pending] of this.#pending) {
      pending.waitedTicks++;
      if (!pending.isWanted) continue;
      if (pending.waitedTicks > LATE_TICKS) {
        pending.isWanted = false;
        area.denyMemory(slice, ETIMEDOUT);
      }
      // The denied write may have asked again.
      isAwaited ||= pending.isWanted;
    }
    return isAwaited;
  }

  onCompletion(tag: number, result: number): void {
    this.#inFlight--;
    const area = this.#area;
    if (area === undefined) this.#release();
    else this.#continueAllocation(area, tag >>> 1, tag & 1, result);
  }

  /** Unmaps it, unless its places are in use. Allocations in flight end by themselves, and keep the file until then. */
  close(): void {
    this.#area = undefined;
    if (this.#pause !== undefined) this.#reactor.cancelTimer(this.#pause);
    this.#pause = undefined;
    this.#leaveMemory();
    this.#release();
  }

  #placesIn(records: CopyRecords, isPopulated: boolean): PlacesOfMap {
    const { count, placeBytes, placesOffsetBytes: offsetBytes } = records;
    return {
      isPopulated,
      count,
      placeBytes,
      offsetBytes,
      memory: this.#memory,
      hold: () => this.#memoryUsers++,
      release: () => this.#leaveMemory(),
    };
  }

  #leaveMemory(): void {
    this.#memoryUsers--;
    if (this.#memoryUsers === 0) this.#memory.unmap();
  }

  #continueAllocation(area: DiffArea, slice: number, part: number, result: number): void {
    if (result === -EINTR || (result >= 0 && part === 0)) {
      this.#submit(slice, result < 0 ? part : 1);
      return;
    }
    const pending = this.#pending.get(slice);
    if (pending !== undefined && isRingShort(result) && pending.triesLeft-- > 0) {
      pending.waitingPart = part;
      this.#pause ??= this.#reactor.setTimer(TRIES_PAUSE_MS, () => this.#tryAgain());
      return;
    }
    this.#pending.delete(slice);
    if (pending?.isWanted !== true) return;
    if (result < 0) area.denyMemory(slice, -result);
    else area.grantMemory(slice);
  }

  #tryAgain(): void {
    this.#pause = undefined;
    for (const [slice, pending] of this.#pending) {
      const part = pending.waitingPart;
      if (part === NONE) continue;
      pending.waitingPart = NONE;
      if (pending.isWanted) this.#submit(slice, part);
      else this.#pending.delete(slice);
    }
  }

  #submit(slice: number, part: number): void {
    const { offsetBytes, lengthBytes } = this.map.slices.ranges(slice)[part];
    this.#inFlight++;
    prepareFallocate(
      this.#reactor.ring,
      this.#fileIndex,
      FallocateMode.KEEP_SIZE,
      low32(offsetBytes),
      high32(offsetBytes),
      low32(lengthBytes),
      high32(lengthBytes),
      (slice << 1) | part,
      this.#handlerId,
      SqeFlag.FIXED_FILE,
    );
  }

  #release(): void {
    if (this.#fileIndex === NONE || this.#inFlight > 0) return;
    this.#reactor.removeHandler(this.#handlerId);
    this.#reactor.removeFile(this.#fileIndex);
  }
}
