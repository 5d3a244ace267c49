/** All trackers and snapshots, and lookups for them. */
import { resolve } from "node:path";
import { ControlError } from "@blksnap/api";
import type { AreaId } from "@blksnap/data-plane";
import {
  attribute,
  blockIdentity,
  type DeviceNumber,
  type DeviceOrFile,
  deviceKey,
  deviceOrFile,
  devicesIn,
  knownStackOf,
  type LiveNode,
  parseDevice,
  stackOf,
  type TopologyProbe,
} from "@blksnap/linux-block";
import { Serial } from "@blksnap/uring";
import type { BlockDeviceFacts } from "./ports.js";
import type { TrackerRecord } from "./records/records.js";
import type { UnknownFronts } from "./recovery/unknown-fronts.js";
import type { Snapshot } from "./snapshot/snapshot.js";
import { identityOf } from "./system/path-target.js";
import type { LiveReturns } from "./tracker/live-returns.js";
import { assertNoOverlap, bothNames, type TrackedPath } from "./tracker/overlap.js";
import { assertSpliced } from "./tracker/splice-watch.js";
import type { Tracker } from "./tracker/tracker.js";

/** A front of an earlier daemon that is not served yet. */
export type UnservedFront = Pick<TrackerRecord, "device" | "identity" | "front" | "live">;

/** A device that is being attached. */
export interface AttachClaim {
  readonly device: string;
  /** Identity of what will lie behind the front. */
  identity: string;
  /** Number N of its front, /dev/ublkbN, once it has one; null before, and if it never has one. */
  front: number | null;
}

/** A device on which the daemon must not depend. */
export interface OwnDevice {
  readonly path: string;
  /** Why it is the daemon's own: text to follow its path. */
  readonly how: string;
}

/** Major number of /dev/nbdN. */
const NBD_MAJOR = 43;

export class Registry {
  /** Devices that are being attached: no device that shares data with them may be attached. */
  readonly #claims = new Set<AttachClaim>();
  readonly #claiming = new Serial();
  readonly #unserved: () => readonly UnservedFront[];
  readonly trackers: Map<number, Tracker> = new Map();
  readonly snapshots: Map<string, Snapshot> = new Map();
  /** Fronts that may belong to any device: set after recovery, before users can attach anything. */
  unknown: UnknownFronts | undefined;
  /** Volumes that will be attached again. */
  away: Pick<LiveReturns, "named"> | undefined;

  readonly #onAdded: (tracker: Tracker) => void;

  readonly #look: () => void;
  readonly #blockDevices: BlockDeviceFacts;
  readonly #isNbd: boolean;

  /**
   * @param look called before a device is looked up: its node may have another name, or lead elsewhere
   * @param isNbd whether fronts and images are exports over NBD
   */
  constructor(
    blockDevices: BlockDeviceFacts,
    unserved: () => readonly UnservedFront[] = () => [],
    onAdded: (tracker: Tracker) => void = () => undefined,
    look: () => void = () => undefined,
    isNbd = false,
  ) {
    this.#blockDevices = blockDevices;
    this.#unserved = unserved;
    this.#onAdded = onAdded;
    this.#look = look;
    this.#isNbd = isNbd;
  }

  readonly addTracker = (tracker: Tracker): void => {
    this.trackers.set(tracker.id, tracker);
    this.#onAdded(tracker);
  };

  /** A reactor has died: releases its devices, so that the kernel has them wait for another server. */
  releaseDevicesOf(reactor: number): void {
    for (const tracker of this.trackers.values()) {
      if (tracker.reactor !== reactor) continue;
      tracker.front.release();
      this.snapshotOf(tracker)?.members.get(tracker.id)?.image?.release();
    }
  }

  /**
   * The tracker that a path means, by its original or its front; undefined if there is none. An original that is gone,
   * such as a disk that was pulled out, is still known by its name.
   * @throws ControlError DEVICE_NOT_FOUND, DEVICE_FAILED
   */
  async findTracker(path: string): Promise<Tracker | undefined> {
    this.#look();
    try {
      const identity = await identityOf(path, this.#blockDevices.lookUp);
      // Compared now: a tracker may have been detached meanwhile.
      return this.#trackerWhere((tracker) => tracker.hasIdentity(identity));
    } catch (error) {
      const gone = this.#trackerWhere(({ device }) => device === resolve(path));
      if (gone !== undefined) return gone;
      throw error;
    }
  }

  #trackerWhere(isWanted: (tracker: Tracker) => boolean): Tracker | undefined {
    return [...this.trackers.values()].find((tracker) => !tracker.isGone && isWanted(tracker));
  }

  /** Nodes of all live attaches, served or not. */
  get liveNodes(): LiveNode[] {
    const served = [...this.trackers.values()].flatMap(({ splice }) => splice?.node ?? []);
    return [...served, ...this.#unserved().flatMap(({ live }) => live ?? [])];
  }

  /** As tracker(), for a tracker that misses no writes. @throws ControlError SPLICE_LOST; as tracker() */
  async intact(path: string): Promise<Tracker> {
    const tracker = await this.tracker(path);
    assertSpliced(tracker);
    return tracker;
  }

  /** The name that operations on a path lock. @throws ControlError DEVICE_NOT_FOUND, DEVICE_FAILED */
  async identity(path: string): Promise<string> {
    try {
      const tracker = await this.findTracker(path);
      const known = tracker?.splice?.identity ?? tracker?.identity;
      return known ?? (await identityOf(path, this.#blockDevices.lookUp));
    } catch (error) {
      // The original of a front that waits may be away, and a volume that is away may have another name by now.
      const others = this.#others().find(({ device }) => device === resolve(path));
      const known = others?.identity ?? this.away?.named(path)?.splice.identity;
      if (known === undefined) throw error;
      return known;
    }
  }

  /**
   * Attaches a device while others are being attached: each is checked against the existing ones and those in progress.
   * @throws ControlError DEVICE_IS_OURS, DEVICE_OVERLAPS, DEVICE_BUSY
   */
  async claimed<Value>(
    path: string,
    attach: (claim: AttachClaim) => Promise<Value>,
  ): Promise<Value> {
    await this.unknown?.assertNone(path);
    const claim = await this.#claiming.run(async () => {
      await this.assertNoImage(path);
      await this.assertDisjoint(path);
      const made: AttachClaim = {
        device: path,
        identity: await identityOf(path, this.#blockDevices.lookUp),
        front: null,
      };
      this.#claims.add(made);
      return made;
    });
    try {
      return await attach(claim);
    } finally {
      this.#claims.delete(claim);
    }
  }

  /** Fronts and originals that are not trackers yet. */
  #others(): { device: string; identity: string; front: number | null }[] {
    return [...this.#unserved(), ...this.#claims];
  }

  /** @throws ControlError NOT_ATTACHED, DEVICE_NOT_FOUND, DEVICE_FAILED */
  async tracker(path: string): Promise<Tracker> {
    const tracker = await this.findTracker(path);
    if (tracker !== undefined) return tracker;
    const named = this.#trackerWhere(({ device }) => device === resolve(path));
    if (named === undefined) throw new ControlError("NOT_ATTACHED", `${path} is not attached`);
    const what = `${path} leads to another device now, which is not attached`;
    const name = await bothNames(named.device, named.identity);
    const hint = `The device attached by this name is ${name}; its front is ${named.front.path}`;
    throw new ControlError("NOT_ATTACHED", what, { hint });
  }

  /** @throws ControlError SNAPSHOT_NOT_FOUND */
  snapshot(id: string): Snapshot {
    const snapshot = this.snapshotToDestroy(id);
    if (snapshot.state === "destroying") throw snapshotNotFound(id);
    return snapshot;
  }

  /** As snapshot(), including one whose destroy has failed. @throws ControlError SNAPSHOT_NOT_FOUND */
  snapshotToDestroy(id: string): Snapshot {
    const snapshot = this.snapshots.get(id.toLowerCase());
    if (snapshot === undefined) throw snapshotNotFound(id);
    return snapshot;
  }

  snapshotOf(tracker: Tracker): Snapshot | undefined {
    return [...this.snapshots.values()].find((snapshot) => snapshot.members.has(tracker.id));
  }

  /** The snapshot that has this area of the device. */
  snapshotWith({ id }: Tracker, area: AreaId): Snapshot | undefined {
    return [...this.snapshots.values()].find(
      (snapshot) => snapshot.hasArea(area) && snapshot.members.has(id),
    );
  }

  /** @throws ControlError if the device is in another snapshot already */
  assertFree(tracker: Tracker, wanted?: Snapshot): void {
    const snapshot = this.snapshotOf(tracker);
    if (snapshot === undefined) return;
    const what = `${tracker.device} is in snapshot ${snapshot.id}`;
    if (snapshot === wanted) throw new ControlError("DEVICE_ALREADY_IN_SNAPSHOT", what);
    throw new ControlError("DEVICE_IN_OTHER_SNAPSHOT", what);
  }

  /** @throws ControlError DEVICE_IN_SNAPSHOT */
  assertInNoSnapshot(tracker: Tracker): void {
    const snapshot = this.snapshotOf(tracker);
    if (snapshot === undefined) return;
    const what = `${tracker.device} is in snapshot ${snapshot.id}`;
    throw new ControlError("DEVICE_IN_SNAPSHOT", what);
  }

  /** @throws ControlError DEVICE_IS_OURS if the path is an image */
  async assertNoImage(path: string): Promise<void> {
    const identity = await identityOf(path, this.#blockDevices.lookUp);
    for (const snapshot of this.snapshots.values()) {
      for (const { image } of snapshot.members.values()) {
        if (image === undefined || identity !== blockIdentity(image.deviceNumber)) continue;
        throw new ControlError("DEVICE_IS_OURS", `${path} is the image of snapshot ${snapshot.id}`);
      }
    }
  }

  /** @throws ControlError DEVICE_OVERLAPS if the path shares data with a tracked device */
  async assertDisjoint(path: string): Promise<void> {
    await assertNoOverlap(path, this.tracked, this.topology);
  }

  /** Everything that is tracked, including fronts that are not served yet. */
  get tracked(): TrackedPath[] {
    const served = [...this.trackers.values()].map(
      (tracker): TrackedPath => ({
        device: tracker.device,
        identity: tracker.identity,
        places: [
          tracker.place,
          ...(tracker.front.isLive ? numbersIn(tracker.front.deviceNumber) : []),
        ],
      }),
    );
    const others = this.#others().map(
      ({ device, identity, front }): TrackedPath => ({
        device,
        identity,
        places: [deviceOrFile(identity, device), ...numbersOfFront(front)],
      }),
    );
    return [...served, ...others];
  }

  /**
   * The front or image that a path lies on, or undefined. None of the daemon's own files may lie there: if it is killed
   * while it waits for its own device, it cannot end (apart.ts of @blksnap/uring). The kernel does not tell which
   * export an NBD device shows: if there are exports, each NBD device counts.
   */
  async ownDeviceBeneath(path: DeviceOrFile | string): Promise<OwnDevice | undefined> {
    const served = [...this.trackers.values()].flatMap((tracker) => {
      const image = this.snapshotOf(tracker)?.members.get(tracker.id)?.image;
      return image === undefined ? [tracker.front] : [tracker.front, image];
    });
    const unserved = this.#others().flatMap(({ front }) =>
      numbersOfFront(front).map((number) => ({
        path: `/dev/ublkb${front}`,
        deviceNumber: deviceKey(number),
      })),
    );
    const own = [...served, ...unserved];
    if (own.length === 0 && !this.#isNbd) return undefined;
    const lookThrough = own.length === 0 ? knownStackOf : stackOf;
    const beneath = devicesIn(await lookThrough(path, this.topology));
    if (this.#isNbd) {
      const nbd = beneath.find(({ device }) => device.major === NBD_MAJOR);
      return nbd && { path: nbd.name, how: "which may be an export of this daemon" };
    }
    const numbers = new Set(beneath.map(({ device }) => deviceKey(device)));
    const found = own.find(({ deviceNumber }) => numbers.has(deviceNumber));
    return found && { path: found.path, how: "which this daemon serves" };
  }

  /** Adds to sysfs what lies behind a front or an image, whatever its name. */
  get topology(): TopologyProbe {
    const layers = (device: DeviceNumber) => this.#layersBelow(deviceKey(device));
    return { ...this.#blockDevices, layers };
  }

  #layersBelow(key: string): DeviceOrFile[] | undefined {
    for (const tracker of this.trackers.values()) {
      const image = this.snapshotOf(tracker)?.members.get(tracker.id)?.image;
      if (key !== tracker.front.deviceNumber && key !== image?.deviceNumber) continue;
      return [tracker.place];
    }
    for (const { device, identity, front } of this.#others()) {
      if (!numbersOfFront(front).some((number) => deviceKey(number) === key)) continue;
      return [deviceOrFile(identity, device)];
    }
    return undefined;
  }
}

export function snapshotNotFound(id: string): ControlError {
  return new ControlError("SNAPSHOT_NOT_FOUND", `there is no snapshot ${id}`);
}

/** The kernel's numbers of /dev/ublkbN; empty if it does not exist. */
function numbersOfFront(front: number | null): DeviceNumber[] {
  if (front === null) return [];
  return numbersIn(attribute(`/sys/block/ublkb${front}`, "dev"));
}

function numbersIn(key: string | null): DeviceNumber[] {
  const number = parseDevice(key);
  return number === undefined ? [] : [number];
}
