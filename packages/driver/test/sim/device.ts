/** A tracked disk, as its users and the harness know it. */
import type { SimDisk, SimUser } from "@blksnap/sim-kernel";
import type { Told } from "./losses.js";
import { Sequence } from "./sequence.js";
import { DISK_SECTORS } from "./settings.js";
import { Volume, ZERO } from "./volume.js";

/** `unknown`: an operation was under way when the driver died. */
export type Certainty = "no" | "yes" | "unknown";

/** A take of the device's present generation. */
export interface TakeNumber {
  readonly number: number;
  /** Places in the order of all things: when it was asked for, and when it had been answered. */
  readonly askedAt: number;
  readonly answeredAt: number;
}

export class Device {
  readonly sequence: Sequence = new Sequence();
  readonly path: string;
  readonly disk: SimDisk;
  readonly volume: Volume;
  attached: Certainty = "no";
  /** Its map is to outlive the power; unknown: there may be a record of an earlier one. */
  persistent: Certainty = "no";
  /** Its journal may have failed. */
  mayHaveFailed = false;
  /** It was ended, or the power went, since it was last looked at: its map may have begun anew. */
  mayBeNew = false;
  /** Its map has continued after that: a diff is to show that it misses nothing. */
  isToProve = false;
  front: string | undefined;
  user: SimUser | undefined;
  /** An operation of the API has it. */
  isInHand = false;
  inFlight = 0;
  /** Writes to its front that have not been answered. */
  readonly writes = new Set<WindowWrite>();
  generation: string | undefined;
  /** Another generation has begun since its front was ended. */
  isRenewed = false;
  takes: TakeNumber[] = [];
  /** By sector: when the last write that was acknowledged had been asked for; 0 for none. */
  readonly writtenAt = new Float64Array(DISK_SECTORS);
  /** As writtenAt was when the last take was asked for. */
  frozen: Float64Array | undefined;

  constructor(path: string, disk: SimDisk) {
    this.path = path;
    this.disk = disk;
    this.volume = new Volume(path, DISK_SECTORS);
  }

  /** Its map begins anew: what was written before is not promised any more. */
  newGeneration(id: string): void {
    if (this.generation === id) return;
    this.isRenewed = true;
    this.generation = id;
    this.takes = [];
    this.frozen = undefined;
    this.writtenAt.fill(0);
  }

  /** The power has gone: the disk has what it may have, and a persistent map has all of it. */
  powerGone(): void {
    this.volume.cut();
    this.volume.check(0, this.disk.bytes, "the original after a power cut");
    for (const { firstSector, sectors, value, askedAt } of this.writes) {
      // Nobody has answered it. What was zeroed looks like what was never written.
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

  /** The disk that its map's journal is on fails. */
  mayBeUnkept(): void {
    if (this.persistent === "yes") this.persistent = "unknown";
    this.mayHaveFailed = true;
  }

  /** Nobody tracks it: what the map has is of use again only where it is kept. */
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
  readonly volume: Volume;
  path: string | undefined;
  user: SimUser | undefined;
  inFlight: number;
  told?: Told;
}

export interface SimSnapshot {
  id: string | undefined;
  readonly devices: Device[];
  taken: Certainty;
  isGone: Certainty;
  isInHand: boolean;
  readonly isPersistent: boolean;
  /** It was ended, or the power went: images of originals that others wrote to are lost. */
  mayLoseImages: boolean;
  /** Numbers of errors for which its images may lose blocks; empty: it has to keep all. */
  readonly mayLose: Set<number>;
  /** Its store is too small for all that may be written. */
  readonly mayBeFull: boolean;
  /** Users' writes fail in place of its images. */
  readonly failsWrites: boolean;
  /** The disk that its journals are on has failed: it may not be persistent any more. */
  mayBeUnkept: boolean;
  store?: string;
  /** It was being added when the driver died. */
  added?: Device | undefined;
  readonly images: Map<Device, Image>;
  /** A take is under way: writes may be on its images. */
  isTaking: boolean;
  /** Its images were read once: users may write to them. */
  isLookedAt: boolean;
  isLooking: boolean;
  readonly window: WindowWrite[];
}

/** A write during a take: it is on the image as a whole, or not at all. */
export interface WindowWrite {
  readonly device: Device;
  readonly firstSector: number;
  readonly sectors: number;
  readonly value: number;
  readonly askedAt: number;
  /** Infinity: not acknowledged. */
  answeredAt: number;
}
