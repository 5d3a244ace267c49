/** A tracked disk, as seen by its users and the harness. */
import type { SimDisk, SimUser } from "@blksnap/sim-kernel";
import type { ReportedLosses } from "./losses.js";
import { Sequence } from "./sequence.js";
import { DISK_BYTES, GROWN_MAX_SECTORS } from "./settings.js";
import { Violation } from "./violation.js";
import { SECTOR_BYTES, Volume, ZERO } from "./volume.js";

/** `unknown`: an operation was in progress when the driver died. */
export type Certainty = "no" | "yes" | "unknown";

/** A take of the device's present generation. */
export interface TakeNumber {
  readonly number: number;
  /** When it was requested, and when it was answered, by the simulation's counter of events. */
  readonly askedAt: number;
  readonly answeredAt: number;
}

/** Of a map, as the API has it. */
export interface MapInfo {
  readonly generation_id: string;
  readonly capacity_bytes: number;
}

export class Device {
  readonly sequence: Sequence = new Sequence();
  readonly path: string;
  readonly disk: SimDisk;
  readonly volume: Volume;
  attached: Certainty = "no";
  /** Its map survives a power cut; unknown: an earlier tracker may have left a record. */
  persistent: Certainty = "no";
  /** Its journal may have failed. */
  mayHaveFailed = false;
  /** It was ended, or the power was cut, since the last check: its map may have begun anew. */
  mayBeNew = false;
  /** Its map has continued after that: a diff has to show that it misses nothing. */
  isToProve = false;
  front: string | undefined;
  user: SimUser | undefined;
  /** An operation of the API uses it. */
  isInHand = false;
  inFlight = 0;
  /** Unanswered writes to its front. */
  readonly writes = new Set<WindowWrite>();
  generation: string | undefined;
  /** How much of it the map of that generation covers. */
  mapBytes = 0;
  /** Another generation has begun since its front was ended. */
  isRenewed = false;
  takes: TakeNumber[] = [];
  /** By sector: when its last acknowledged write was requested; 0 for none. */
  readonly writtenAt = new Float64Array(GROWN_MAX_SECTORS);
  /** writtenAt at the time when the last take was requested. */
  frozen: Float64Array | undefined;

  constructor(path: string, disk: SimDisk) {
    this.path = path;
    this.disk = disk;
    this.volume = new Volume(path, GROWN_MAX_SECTORS);
  }

  /** Sectors that its users have at present, if there are any. */
  get sectors(): number {
    return (this.user?.device.capacityBytes ?? DISK_BYTES) / SECTOR_BYTES;
  }

  /** Its map, as the driver tells of it, may have begun anew: earlier takes promise nothing then. @throws Violation */
  noteMap({ generation_id: id, capacity_bytes: bytes }: MapInfo): void {
    if (this.generation === id) {
      if (this.mapBytes === bytes) return;
      throw new Violation(`the map of ${this.path} has another size in the same generation`);
    }
    this.isRenewed = true;
    this.generation = id;
    this.mapBytes = bytes;
    this.takes = [];
    this.frozen = undefined;
  }

  /** A power cut: the disk has what it may have, and a persistent map has all of it. */
  powerGone(): void {
    this.volume.cut();
    this.volume.check(0, this.disk.bytes, "the original after a power cut");
    for (const { firstSector, sectors, value, askedAt } of this.writes) {
      // Not acknowledged. Zeroed sectors look like ones never written.
      for (let at = firstSector; value !== ZERO && at < firstSector + sectors; at++) {
        if (this.volume.values[at] === value) this.writtenAt[at] = askedAt;
      }
    }
    this.ended();
  }

  /** Its front is gone. */
  ended(): void {
    const { persistent } = this;
    this.volume.forgetDiscards();
    this.isRenewed = false;
    this.mayBeNew = true;
    if (persistent === "no") {
      this.attached = "no";
      this.mapLeft();
    } else if (persistent === "unknown" || this.attached !== "yes") this.attached = "unknown";
    this.front = undefined;
    this.isInHand = false;
    this.inFlight = 0;
    this.writes.clear();
    this.user = undefined;
  }

  /** The disk of its map's journal fails. */
  mayBeUnkept(): void {
    if (this.persistent === "yes") this.persistent = "unknown";
    this.mayHaveFailed = true;
  }

  /** It is not tracked any more: the map's content matters only if the map is kept. */
  mapLeft(): void {
    if (this.persistent === "no") this.generation = undefined;
  }

  closeUser(): void {
    this.user?.close();
    this.user = undefined;
  }
}

export interface Image {
  readonly device: Device;
  /** Set at its take, for good; 0 until it is known. */
  sectors: number;
  readonly volume: Volume;
  path: string | undefined;
  user: SimUser | undefined;
  inFlight: number;
  told?: ReportedLosses;
}

export interface SimSnapshot {
  id: string | undefined;
  readonly devices: Device[];
  taken: Certainty;
  isGone: Certainty;
  isInHand: boolean;
  readonly isPersistent: boolean;
  /** It was ended, or the power was cut: images of originals that others wrote to are lost. */
  mayLoseImages: boolean;
  /** Errnos for which its images may lose blocks; empty: they have to keep all. */
  readonly mayLose: Set<number>;
  /** Its store is too small for all possible writes. */
  readonly mayBeFull: boolean;
  /** Users' writes fail, and its images stay complete. */
  readonly failsWrites: boolean;
  /** The disk of its journals has failed: it may not be persistent any more. */
  mayBeUnkept: boolean;
  store?: string;
  /** A device that was being added when the driver died. */
  added?: Device | undefined;
  readonly images: Map<Device, Image>;
  /** A take is in progress: writes may be on its images. */
  isTaking: boolean;
  /** Its images were checked once: users may write to them. */
  isLookedAt: boolean;
  /** The check of its images that is in progress, which another one replaces after some of them were deleted. */
  look: object | undefined;
  readonly window: WindowWrite[];
}

/** A write during a take: the image has all of it, or nothing. */
export interface WindowWrite {
  readonly device: Device;
  readonly firstSector: number;
  readonly sectors: number;
  readonly value: number;
  readonly askedAt: number;
  /** Infinity: not acknowledged. */
  answeredAt: number;
}
