/**
 * A fake driver that keeps state only in memory: devices by name, no ublk, no data. Tests run the control server, the
 * client and the command line on it, without root.
 */
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { release } from "node:os";
import { Readable } from "node:stream";
import type {
  AttachRequestOptions,
  AttachResponse,
  ByteRange,
  CbtInfo,
  DetachRequestOptions,
  DetachResponse,
  DiffAnswer,
  DriverControl,
  MarkDirtyFileResponse,
  MarkDirtyResponse,
  MetricFamily,
  SnapshotAddResponse,
  SnapshotCreateOptions,
  SnapshotCreateProgress,
  SnapshotCreateResponse,
  SnapshotEvent,
  SnapshotInfo,
  SnapshotStatus,
  SnapshotSummary,
  SnapshotTakeResponse,
  StatusResponse,
  TrackerStatus,
  VersionResponse,
} from "@blksnap/api";
import { ControlError } from "@blksnap/api";
import { FakeEvents } from "./fake-events.js";
import { type FakeSnapshot, fileSystems, STALL_US, snapshotStatus } from "./fake-snapshot.js";
import { FakeTracker } from "./fake-tracker.js";

export class FakeDriver implements DriverControl {
  /** The existing devices, with their sizes in bytes. */
  readonly devices: Map<string, number> = new Map([
    ["/dev/loop0", 64 * 2 ** 20],
    ["/dev/loop1", 32 * 2 ** 20],
  ]);
  readonly snapshots: Map<string, FakeSnapshot> = new Map();
  /** Its identity in status. */
  identity: Pick<StatusResponse["daemon"], "pid" | "version" | "handover"> = {
    pid: process.pid,
    version: "0.1.0",
    handover: null,
  };
  /** Fronts that it reports as waiting. */
  waiting: StatusResponse["waiting"] = [];
  untracked: StatusResponse["untracked"] = [];
  /** The TCP addresses that it reports as open. */
  nbdListeners: StatusResponse["nbd_listeners"] = [];
  /** Persistent trackers that it remembers, and does not serve. */
  readonly remembered: Set<string> = new Set();
  /** The state of its configuration. */
  configuration: StatusResponse["daemon"]["configuration"] = { mistakes: [], missing: [] };
  /** How its stores are allocated during a create; each step lasts until it resolves. */
  fillSteps: readonly { readonly allocatedBytes: number; readonly done: Promise<void> }[] = [];
  readonly #trackers = new Map<string, FakeTracker>();
  readonly #startedAt = Date.now();
  #nextDevice = 0;

  async version(): Promise<VersionResponse> {
    const kernel = release();
    const node = process.versions.node;
    return { interface: "2.0.0.0", daemon: "0.1.0", api: "v1", node, kernel };
  }

  async metrics(): Promise<readonly MetricFamily[]> {
    return [
      {
        name: "blksnap_trackers",
        help: "Tracked devices.",
        type: "gauge",
        samples: [{ value: this.#trackers.size }],
      },
    ];
  }

  async status(): Promise<StatusResponse> {
    return {
      daemon: {
        ...this.identity,
        started_at: new Date(this.#startedAt).toISOString(),
        uptime_ms: Date.now() - this.#startedAt,
        kernel: release(),
        reactors: 1,
        configuration: this.configuration,
      },
      reactors: [{ index: 0, devices: this.#trackers.size, stalled_ms: 0, stalls: 0 }],
      trackers: [...this.#trackers.values()].map((tracker) => tracker.status()),
      waiting: this.waiting,
      untracked: this.untracked,
      snapshots: [...this.snapshots.values()].map(snapshotStatus),
      nbd_listeners: this.nbdListeners,
    };
  }

  async attach(device: string, options: AttachRequestOptions = {}): Promise<AttachResponse> {
    const known = this.#find(device);
    if (known !== undefined) return known.attachAnswer(true);
    const capacity = this.devices.get(device);
    if (capacity === undefined) {
      throw new ControlError("DEVICE_NOT_FOUND", `can't attach ${device}: no such device`);
    }
    const front = this.#newDevice();
    const tracker = new FakeTracker(device, front, capacity, options.kind);
    this.#trackers.set(device, tracker);
    return tracker.attachAnswer(false);
  }

  async detach(device: string, options?: DetachRequestOptions): Promise<DetachResponse> {
    if (options?.forget && this.remembered.delete(device)) return { device, front: "" };
    const tracker = this.#tracker(device);
    if (tracker.snapshotId !== null) {
      throw new ControlError(
        "DEVICE_IN_SNAPSHOT",
        `can't detach ${tracker.device}: it is in snapshot ${tracker.snapshotId}`,
      );
    }
    this.#trackers.delete(tracker.device);
    return { device: tracker.device, front: tracker.front };
  }

  async cbtInfo(device: string): Promise<CbtInfo> {
    const tracker = this.#tracker(device);
    return { device: tracker.device, front: tracker.front, ...tracker.cbt() };
  }

  async readCbtMap(device: string, firstBlock: number, count: number): Promise<Uint8Array> {
    const { readMap } = this.#tracker(device);
    if (firstBlock + count > readMap.length) {
      throw new ControlError("CBT_RANGE", `the map of ${device} has ${readMap.length} blocks`);
    }
    return readMap.subarray(firstBlock, firstBlock + count);
  }

  async markDirty(device: string, ranges: readonly ByteRange[]): Promise<MarkDirtyResponse> {
    const tracker = this.#tracker(device);
    tracker.mark(ranges);
    return { device: tracker.device, ranges: ranges.length };
  }

  async markDirtyFile(file: string, device = "/dev/loop0"): Promise<MarkDirtyFileResponse> {
    if (file.includes("missing")) {
      throw new ControlError("FILE_NOT_FOUND", `can't map ${file}: no such file`);
    }
    const tracker = this.#tracker(device);
    const ranges = [
      { offset_bytes: 1_048_576, length_bytes: 4096 },
      { offset_bytes: 2_097_152, length_bytes: 65_536 },
    ];
    tracker.mark(ranges);
    return { device: tracker.device, device_number: "7:0", ranges };
  }

  async diff(device: string, since: number): Promise<DiffAnswer> {
    const tracker = this.#tracker(device);
    const { block_bytes, capacity_bytes, generation_id, changes_number } = tracker.cbt();
    if (since > changes_number) {
      throw new ControlError(
        "CBT_NUMBER_UNKNOWN",
        `${tracker.device} is at number ${changes_number}, not yet at ${since}`,
      );
    }
    const ranges = tracker.changedSince(since);
    return {
      device: tracker.device,
      front: tracker.front,
      generation_id,
      since,
      changes_number,
      block_bytes,
      capacity_bytes,
      changed_blocks: tracker.readMap.reduce((sum, number) => sum + Number(number > since), 0),
      changed_bytes: ranges.reduce((sum, range) => sum + range.length_bytes, 0),
      ranges: Readable.from([ranges]),
    };
  }

  async trackerStatus(device: string): Promise<TrackerStatus> {
    return this.#tracker(device).status();
  }

  async snapshotInfo(device: string): Promise<SnapshotInfo> {
    const { device: original, front, image, errorCode, snapshotId } = this.#tracker(device);
    const told = { device: original, front, image, nbd_uri: null };
    return { ...told, error_code: errorCode, snapshot_id: snapshotId };
  }

  async snapshotCreate(
    options: SnapshotCreateOptions,
    signal?: AbortSignal,
    onProgress?: (progress: SnapshotCreateProgress) => void,
  ): Promise<SnapshotCreateResponse> {
    for (const step of this.fillSteps) {
      const { allocatedBytes: allocated_bytes, done } = step;
      const progress = { store: options.stores[0]!, allocated_bytes };
      onProgress?.({ ...progress, target_bytes: options.limitBytes });
      await Promise.race(signal === undefined ? [done] : [done, once(signal, "abort")]);
      if (signal?.aborted) throw new ControlError("ABORTED", "snapshot_create was cancelled");
    }
    const twice = options.devices.find((device, at) => options.devices.indexOf(device) !== at);
    if (twice !== undefined) {
      const hint = "Nothing was created; give each device once";
      throw new ControlError("DEVICE_ALREADY_IN_SNAPSHOT", `${twice} is given twice`, { hint });
    }
    const missing = options.stores.find((store) => store.includes("missing"));
    if (missing !== undefined) {
      throw new ControlError(
        "STORE_NOT_FOUND",
        `can't use the store ${missing}: it does not exist`,
      );
    }
    const id = randomUUID();
    const attached = options.devices.filter((device) => !this.#trackers.has(device));
    this.snapshots.set(id, {
      id,
      options,
      createdAt: new Date().toISOString(),
      members: [],
      events: new FakeEvents(id),
      takenAt: null,
    });
    try {
      for (const device of options.devices) await this.snapshotAdd(id, device);
    } catch (error) {
      await this.snapshotDestroy(id);
      throw error;
    }
    return { id, attached };
  }

  async snapshotAdd(id: string, device: string): Promise<SnapshotAddResponse> {
    const snapshot = this.#snapshot(id);
    if (snapshot.takenAt !== null) {
      throw new ControlError("SNAPSHOT_ALREADY_TAKEN", `snapshot ${id} is already taken`);
    }
    await this.attach(device);
    const tracker = this.#tracker(device);
    if (tracker.snapshotId === id) {
      throw new ControlError(
        "DEVICE_ALREADY_IN_SNAPSHOT",
        `${device} is already in snapshot ${id}`,
      );
    }
    if (tracker.snapshotId !== null) {
      throw new ControlError(
        "DEVICE_IN_OTHER_SNAPSHOT",
        `${device} is in snapshot ${tracker.snapshotId}`,
      );
    }
    tracker.snapshotId = id;
    snapshot.members.push(tracker);
    return { id, device: tracker.device, front: tracker.front };
  }

  async snapshotTake(id: string): Promise<SnapshotTakeResponse> {
    const snapshot = this.#snapshot(id);
    if (snapshot.takenAt !== null) {
      throw new ControlError("SNAPSHOT_ALREADY_TAKEN", `snapshot ${id} is already taken`);
    }
    if (snapshot.members.length === 0) {
      throw new ControlError("SNAPSHOT_EMPTY", `snapshot ${id} has no device`);
    }
    snapshot.takenAt = new Date().toISOString();
    const images = snapshot.members.map((tracker) => {
      tracker.switchMaps();
      const image = this.#newDevice();
      tracker.image = image;
      return { device: tracker.device, image };
    });
    return { id, stall_us: STALL_US, images, file_systems: fileSystems(snapshot) };
  }

  async snapshotDestroy(id: string): Promise<void> {
    const snapshot = this.#snapshot(id);
    this.snapshots.delete(id);
    for (const tracker of snapshot.members) {
      tracker.snapshotId = null;
      tracker.image = null;
    }
    snapshot.events.destroy();
  }

  async snapshotCollect(): Promise<readonly SnapshotSummary[]> {
    return [...this.snapshots.values()].map(({ id, takenAt, members }) => ({
      id,
      taken: takenAt !== null,
      devices: members.map((tracker) => tracker.device),
    }));
  }

  async snapshotStatus(id: string): Promise<SnapshotStatus> {
    return snapshotStatus(this.#snapshot(id));
  }

  async waitEvent(
    id: string,
    timeoutMs: number,
    signal: AbortSignal,
    reader?: string,
  ): Promise<SnapshotEvent | undefined> {
    return this.#snapshot(id).events.wait(timeoutMs, signal, reader);
  }

  async listEvents(id: string): Promise<readonly SnapshotEvent[]> {
    return this.#snapshot(id).events.list;
  }

  async followEvents(
    id: string,
    from: number,
    signal: AbortSignal,
  ): Promise<AsyncIterable<SnapshotEvent>> {
    return this.#snapshot(id).events.follow(from, signal);
  }

  #newDevice(): string {
    return `/dev/ublkb${this.#nextDevice++}`;
  }

  #find(name: string): FakeTracker | undefined {
    return (
      this.#trackers.get(name) ??
      [...this.#trackers.values()].find((tracker) => tracker.front === name)
    );
  }

  #tracker(name: string): FakeTracker {
    const tracker = this.#find(name);
    if (tracker === undefined) throw new ControlError("NOT_ATTACHED", `${name} is not attached`);
    return tracker;
  }

  #snapshot(id: string): FakeSnapshot {
    const snapshot = this.snapshots.get(id);
    if (snapshot === undefined) {
      throw new ControlError("SNAPSHOT_NOT_FOUND", `there is no snapshot ${id}`);
    }
    return snapshot;
  }
}
