/** The trackers and snapshots that there are, and how they are found. */
import { resolve } from "node:path";
import {
  type DeviceNumber,
  deviceKey,
  deviceNumber,
  type TopologyProbe,
  underlyingDevicesOfPath,
} from "@blksnap/diff-storage";
import { ControlError } from "./control/control-error.js";
import type { Snapshot } from "./snapshot/snapshot.js";
import { blockIdentity, identityOf } from "./tracker/identity.js";
import { assertNoOverlap } from "./tracker/overlap.js";
import type { Tracker } from "./tracker/tracker.js";

export class Registry {
  readonly trackers: Map<number, Tracker> = new Map();
  readonly snapshots: Map<string, Snapshot> = new Map();

  readonly addTracker = (tracker: Tracker): void => {
    this.trackers.set(tracker.id, tracker);
  };

  /**
   * The tracker that a path means, by its original or its front; undefined where there is none. An
   * original that is gone, pulled out, is still known by its name.
   * @throws ControlError DEVICE_NOT_FOUND
   */
  findTracker(path: string): Tracker | undefined {
    const trackers = [...this.trackers.values()];
    try {
      const identity = identityOf(path);
      return trackers.find((tracker) => tracker.hasIdentity(identity));
    } catch (error) {
      const gone = trackers.find(({ device }) => device === resolve(path));
      if (gone !== undefined) return gone;
      throw error;
    }
  }

  /** @throws ControlError NOT_ATTACHED, DEVICE_NOT_FOUND */
  tracker(path: string): Tracker {
    const tracker = this.findTracker(path);
    if (tracker === undefined) throw new ControlError("NOT_ATTACHED", `${path} is not attached`);
    return tracker;
  }

  /** @throws ControlError SNAPSHOT_NOT_FOUND */
  snapshot(id: string): Snapshot {
    const snapshot = this.snapshots.get(id.toLowerCase());
    if (snapshot === undefined || snapshot.state === "destroying") throw snapshotNotFound(id);
    return snapshot;
  }

  snapshotOf(tracker: Tracker): Snapshot | undefined {
    return [...this.snapshots.values()].find((snapshot) => snapshot.members.has(tracker.id));
  }

  /** @throws ControlError when the device is in a snapshot already */
  assertFree(tracker: Tracker, wanted?: Snapshot): void {
    const snapshot = this.snapshotOf(tracker);
    if (snapshot === undefined) return;
    const what = `${tracker.device} is in snapshot ${snapshot.id}`;
    if (snapshot === wanted) throw new ControlError("DEVICE_ALREADY_IN_SNAPSHOT", what);
    throw new ControlError("DEVICE_IN_OTHER_SNAPSHOT", what);
  }

  /** @throws ControlError DEVICE_IS_OURS when the path is an image */
  assertNoImage(path: string): void {
    const identity = identityOf(path);
    for (const snapshot of this.snapshots.values()) {
      for (const { image } of snapshot.members.values()) {
        if (image === undefined || identity !== blockIdentity(image.deviceNumber)) continue;
        throw new ControlError("DEVICE_IS_OURS", `${path} is the image of snapshot ${snapshot.id}`);
      }
    }
  }

  /** @throws ControlError DEVICE_OVERLAPS when the path shares data with a tracked device */
  async assertApart(path: string): Promise<void> {
    const tracked = [...this.trackers.values()].map((tracker) => ({
      device: tracker.device,
      identity: tracker.identity,
      numbers: this.deviceNumbers(tracker),
    }));
    await assertNoOverlap(path, tracked, this.topology);
  }

  /** Block devices through which a tracker's data is written: its front and its original. */
  deviceNumbers(tracker: Tracker): DeviceNumber[] {
    const front = parseNumber(tracker.front.deviceNumber);
    const { kind, deviceNumber: original } = tracker.backing;
    return kind === "block" ? [front, deviceNumber(original)] : [front];
  }

  /**
   * The front or image that a path lies on; undefined where on none. Nothing of the daemon's own may lie
   * there: killed while it waits for its own device it could not end (apart.ts of @blksnap/uring).
   */
  async ownDeviceBeneath(path: string): Promise<string | undefined> {
    const own = [...this.trackers.values()].flatMap((tracker) => {
      const image = this.snapshotOf(tracker)?.members.get(tracker.id)?.image;
      return image === undefined ? [tracker.front] : [tracker.front, image];
    });
    if (own.length === 0) return undefined;
    const beneath = await underlyingDevicesOfPath(path, this.topology);
    const numbers = new Set(beneath.map(({ device }) => deviceKey(device)));
    return own.find(({ deviceNumber }) => numbers.has(deviceNumber))?.path;
  }

  /** What sysfs cannot know: which device lies behind a front or an image. */
  get topology(): TopologyProbe {
    return { layers: (device) => this.#layersBelow(`${device.major}:${device.minor}`) };
  }

  #layersBelow(key: string): DeviceNumber[] {
    for (const tracker of this.trackers.values()) {
      const image = this.snapshotOf(tracker)?.members.get(tracker.id)?.image;
      if (key !== tracker.front.deviceNumber && key !== image?.deviceNumber) continue;
      return [deviceNumber(tracker.backing.deviceNumber)];
    }
    return [];
  }
}

export function snapshotNotFound(id: string): ControlError {
  return new ControlError("SNAPSHOT_NOT_FOUND", `there is no snapshot ${id}`);
}

function parseNumber(key: string): DeviceNumber {
  const [major = 0, minor = 0] = key.split(":").map(Number);
  return { major, minor };
}
