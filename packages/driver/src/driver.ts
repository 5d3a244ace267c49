/**
 * The driver: trackers, snapshots and the reactors that serve them. It implements the operations of
 * the control API and can be used without the daemon.
 */
import { mkdirSync } from "node:fs";
import { release } from "node:os";
import { resolve } from "node:path";
import type {
  AttachResponse,
  CbtInfo,
  DetachResponse,
  DiffResponse,
  MarkDirtyFileResponse,
  MarkDirtyResponse,
  SectorRange,
  SnapshotAddResponse,
  SnapshotEvent,
  SnapshotInfo,
  SnapshotSummary,
  SnapshotTakeResponse,
  StatusResponse,
  VersionResponse,
} from "@blksnap/api";
import { UblkControl } from "@blksnap/ublk";
import { PromiseRing } from "@blksnap/uring";
import type { Logger } from "pino";
import { diffRanges } from "./cbt/diff.js";
import { markedFile } from "./cbt/file-extents.js";
import {
  ControlError,
  type DriverControl,
  type MetricFamily,
  type SnapshotCreateOptions,
} from "./control/index.js";
import type { ReactorNotice } from "./reactor/messages.js";
import { ReactorPool } from "./reactor/pool.js";
import { Serial } from "./serial.js";
import { apiEvent, missedEvent } from "./snapshot/events.js";
import { Snapshot, type SnapshotContext } from "./snapshot/snapshot.js";
import { closeMembers, type TakeContext, takeSnapshot } from "./snapshot/take.js";
import { cbtState, driverMetrics, driverStatus, type StatusSource } from "./status.js";
import { asControlError } from "./system/errors.js";
import { StateDirectory } from "./system/map-file.js";
import { ringStoreSystem } from "./system/store-system.js";
import { identityOf } from "./tracker/identity.js";
import { Tracker, type TrackerContext } from "./tracker/tracker.js";
import { DAEMON_VERSION, INTERFACE_VERSION } from "./version.js";

const SECTOR_BYTES = 512;

export interface DriverOptions {
  readonly logger: Logger;
  /** Directory on tmpfs for the maps; default /run/blksnap. */
  readonly stateDirectory?: string;
  /** Reactor threads, 1 to 16; default one per CPU, at most 4. */
  readonly reactors?: number;
  /** Requests in flight per front, 1 to 4096; default 128. */
  readonly frontDepth?: number;
  /** Requests in flight per image; default 64. */
  readonly imageDepth?: number;
  /** Largest read or write of fronts and images, a multiple of 4096; default 256 KiB. */
  readonly maxIoBytes?: number;
  /** The diff storage grows by this; default 1 GiB (the module's diff_storage_minimum). */
  readonly portionBytes?: number;
  readonly freezeTimeoutMs?: number;
  readonly holdTimeoutMs?: number;
}

type Contexts = TrackerContext & SnapshotContext & TakeContext;

export class Driver implements DriverControl {
  readonly #startedAt = new Date();
  readonly #logger: Logger;
  readonly #control: UblkControl;
  readonly #ring: PromiseRing;
  readonly #reactors: ReactorPool;
  readonly #context: Contexts;
  readonly #serial = new Serial();
  readonly #trackers = new Map<number, Tracker>();
  readonly #snapshots = new Map<string, Snapshot>();
  #nextTracker = 1;

  private constructor(options: DriverOptions, control: UblkControl) {
    this.#logger = options.logger;
    this.#control = control;
    this.#ring = new PromiseRing();
    const frontDepth = options.frontDepth ?? 128;
    const imageDepth = options.imageDepth ?? 64;
    const maxIoBytes = options.maxIoBytes ?? 256 * 1024;
    this.#reactors = new ReactorPool({
      ...(options.reactors === undefined ? {} : { reactors: options.reactors }),
      frontDepth,
      imageDepth,
      maxIoBytes,
      onNotice: (reactor, notice) => this.#onNotice(reactor, notice),
    });
    this.#context = {
      control,
      reactors: this.#reactors,
      state: new StateDirectory(options.stateDirectory ?? "/run/blksnap"),
      storeSystem: ringStoreSystem(this.#ring),
      logger: options.logger,
      frontDepth,
      imageDepth,
      maxIoBytes,
      portionBytes: options.portionBytes ?? 2 ** 30,
      freezeTimeoutMs: options.freezeTimeoutMs ?? 10_000,
      holdTimeoutMs: options.holdTimeoutMs ?? 10_000,
    };
  }

  /** @throws ControlError UBLK_UNAVAILABLE, DEVICE_NOT_PERMITTED */
  static async start(options: DriverOptions): Promise<Driver> {
    mkdirSync(options.stateDirectory ?? "/run/blksnap", { recursive: true, mode: 0o700 });
    const control = await named(UblkControl.open());
    return new Driver(options, control);
  }

  /** Fronts that somebody uses: mounted, or opened exclusively. */
  frontsInUse(): { device: string; front: string }[] {
    return [...this.#trackers.values()]
      .filter((tracker) => tracker.inUse())
      .map((tracker) => ({ device: tracker.device, front: tracker.front.path }));
  }

  /** Destroys all snapshots, detaches all devices and ends the reactors. */
  async stop(): Promise<void> {
    await this.#serial.run(async () => {
      for (const snapshot of [...this.#snapshots.values()]) await this.#destroy(snapshot);
      for (const tracker of [...this.#trackers.values()]) await this.#detach(tracker);
    });
    await this.#reactors.stop();
    this.#ring.close();
    this.#control.close();
  }

  async version(): Promise<VersionResponse> {
    return {
      interface: INTERFACE_VERSION,
      daemon: DAEMON_VERSION,
      api: "v1",
      node: process.version,
      kernel: release(),
    };
  }

  status(): Promise<StatusResponse> {
    return this.#serial.run(() => driverStatus(this.#statusSource()));
  }

  metrics(): Promise<readonly MetricFamily[]> {
    return this.#serial.run(() => driverMetrics(this.#statusSource()));
  }

  attach(device: string): Promise<AttachResponse> {
    return this.#serial.run(async () => {
      const known = this.#findTracker(device);
      const tracker = known ?? (await this.#attach(device));
      return {
        device: tracker.device,
        front: tracker.front.path,
        already_attached: known !== undefined,
      };
    });
  }

  detach(device: string): Promise<DetachResponse> {
    return this.#serial.run(async () => {
      const tracker = this.#tracker(device);
      const snapshot = this.#snapshotOf(tracker);
      if (snapshot !== undefined) {
        const what = `${tracker.device} is in snapshot ${snapshot.id}`;
        throw new ControlError("DEVICE_IN_SNAPSHOT", what);
      }
      await named(this.#detach(tracker));
      return { device: tracker.device, front: tracker.front.path };
    });
  }

  async cbtInfo(device: string): Promise<CbtInfo> {
    const tracker = this.#tracker(device);
    return {
      device: tracker.device,
      front: tracker.front.path,
      ...cbtState(tracker.cbt.info()),
    };
  }

  async readCbtMap(device: string, offset: number, length: number): Promise<Uint8Array> {
    const { cbt } = this.#tracker(device);
    if (offset + length > cbt.blockCount) {
      throw new ControlError(
        "CBT_RANGE",
        `blocks ${offset} to ${offset + length} of ${cbt.blockCount} were asked for`,
      );
    }
    const bytes = new Uint8Array(length);
    cbt.readFrozen(bytes, offset, length);
    return bytes;
  }

  async markDirty(device: string, ranges: readonly SectorRange[]): Promise<MarkDirtyResponse> {
    const tracker = this.#tracker(device);
    const capacity = tracker.geometry.capacityBytes;
    const bytes: number[] = [];
    for (const { offset_sectors: offset, count_sectors: count } of ranges) {
      if ((offset + count) * SECTOR_BYTES > capacity) {
        throw new ControlError(
          "MARK_RANGE",
          `sectors ${offset} to ${offset + count} are beyond the ${capacity / SECTOR_BYTES} of ` +
            tracker.device,
        );
      }
      bytes.push(offset * SECTOR_BYTES, count * SECTOR_BYTES);
    }
    const request = { type: "markDirty", tracker: tracker.id, ranges: bytes } as const;
    await this.#reactors.request(tracker.reactor, request);
    return { device: tracker.device, ranges: ranges.length };
  }

  async markDirtyFile(file: string, device?: string): Promise<MarkDirtyFileResponse> {
    const marked = await markedFile(file, [...this.#trackers.values()]);
    if (device !== undefined && this.#tracker(device) !== marked.tracker) {
      throw new ControlError("FILE_NOT_MAPPABLE", `${file} does not lie on ${device}`);
    }
    await this.markDirty(marked.tracker.device, marked.ranges);
    return {
      device: marked.tracker.device,
      device_number: marked.deviceNumber,
      ranges: [...marked.ranges],
    };
  }

  async diff(device: string, since: number): Promise<DiffResponse> {
    const tracker = this.#tracker(device);
    const info = tracker.cbt.info();
    if (since > info.changesNumber) {
      throw new ControlError(
        "CBT_NUMBER_UNKNOWN",
        `${tracker.device} has no snapshot number ${since}; the last is ${info.changesNumber}`,
      );
    }
    return {
      device: tracker.device,
      front: tracker.front.path,
      since,
      ...diffRanges(tracker.cbt, since),
    };
  }

  async snapshotInfo(device: string): Promise<SnapshotInfo> {
    const tracker = this.#tracker(device);
    const snapshot = this.#snapshotOf(tracker);
    return {
      device: tracker.device,
      front: tracker.front.path,
      image: snapshot?.members.get(tracker.id)?.image?.path ?? null,
      error_code: tracker.errorCode,
      snapshot_id: snapshot?.id ?? null,
    };
  }

  snapshotCreate(options: SnapshotCreateOptions): Promise<{ id: string }> {
    return this.#serial.run(() => named(this.#create(options)));
  }

  snapshotAdd(id: string, device: string): Promise<SnapshotAddResponse> {
    return this.#serial.run(async () => {
      const snapshot = this.#snapshot(id);
      snapshot.assertCreated();
      const tracker = this.#findTracker(device);
      if (tracker !== undefined) this.#assertFree(tracker, snapshot);
      const member = tracker ?? (await this.#attach(device));
      snapshot.addMember(member);
      return { id, device: member.device, front: member.front.path };
    });
  }

  snapshotTake(id: string): Promise<SnapshotTakeResponse> {
    return this.#serial.run(async () => {
      const snapshot = this.#snapshot(id);
      snapshot.assertCreated();
      if (snapshot.members.size === 0) {
        throw new ControlError("SNAPSHOT_EMPTY", `snapshot ${id} has no device`);
      }
      await named(takeSnapshot(this.#context, snapshot));
      this.#logger.info({ snapshot: id, stallUs: snapshot.stallUs }, "snapshot taken");
      return {
        id,
        stall_us: snapshot.stallUs ?? 0,
        images: [...snapshot.members.values()].map(({ tracker, image }) => ({
          device: tracker.device,
          image: image?.path ?? "",
        })),
      };
    });
  }

  snapshotDestroy(id: string): Promise<void> {
    return this.#serial.run(() => named(this.#destroy(this.#snapshot(id))));
  }

  async snapshotCollect(): Promise<readonly SnapshotSummary[]> {
    return [...this.#snapshots.values()].map((snapshot) => ({
      id: snapshot.id,
      taken: snapshot.isTaken,
      devices: [...snapshot.members.values()].map(({ tracker }) => tracker.device),
    }));
  }

  async waitEvent(
    id: string,
    timeoutMs: number,
    signal: AbortSignal,
  ): Promise<SnapshotEvent | undefined> {
    const { events } = this.#snapshot(id);
    const result = await events.wait(timeoutMs, signal);
    if (result.kind === "closed") throw notFound(id);
    return result.kind === "event" ? apiEvent(result.record) : undefined;
  }

  async followEvents(
    id: string,
    from: number,
    signal: AbortSignal,
  ): Promise<AsyncIterable<SnapshotEvent>> {
    const { events } = this.#snapshot(id);
    const fromSequence = Math.min(Math.max(from, events.oldestSequence), events.nextSequence);
    const follower = events.subscribe({ fromSequence, signal });
    return (async function* () {
      for await (const delivery of follower) {
        if (delivery.missed > 0) yield missedEvent(delivery);
        const event = apiEvent(delivery.record);
        if (event !== undefined) yield event;
      }
    })();
  }

  async #attach(device: string): Promise<Tracker> {
    const path = resolve(device);
    this.#refuseOwnImage(path);
    const id = this.#nextTracker++;
    const tracker = await named(Tracker.attach(this.#context, id, path));
    this.#trackers.set(id, tracker);
    this.#logger.info({ device: path, front: tracker.front.path }, "attached");
    return tracker;
  }

  async #detach(tracker: Tracker): Promise<void> {
    await tracker.detach();
    this.#trackers.delete(tracker.id);
    this.#logger.info({ device: tracker.device }, "detached");
  }

  async #create(options: SnapshotCreateOptions): Promise<{ id: string }> {
    if ((options.onOverflow?.policy ?? "break-snapshot") !== "break-snapshot") {
      throw new ControlError("NOT_SUPPORTED", "only the policy break-snapshot is known");
    }
    const attached: Tracker[] = [];
    const members = new Set<Tracker>();
    try {
      for (const device of options.devices) {
        const known = this.#findTracker(device);
        if (known !== undefined) this.#assertFree(known);
        const tracker = known ?? (await this.#attach(device));
        if (known === undefined) attached.push(tracker);
        if (members.has(tracker)) {
          throw new ControlError("DEVICE_ALREADY_IN_SNAPSHOT", `${device} is named twice`);
        }
        members.add(tracker);
      }
      const alignments = [...members].map(({ geometry }) => geometry.logicalBlockBytes);
      const snapshot = await Snapshot.create(this.#context, {
        stores: options.stores,
        limitBytes: options.limitBytes,
        alignmentBytes: Math.min(4096, ...alignments),
      });
      for (const tracker of members) snapshot.addMember(tracker);
      this.#snapshots.set(snapshot.id, snapshot);
      return { id: snapshot.id };
    } catch (error) {
      for (const tracker of attached) await this.#detach(tracker);
      throw error;
    }
  }

  async #destroy(snapshot: Snapshot): Promise<void> {
    snapshot.state = "destroying";
    // Those who wait for events are told at once, however long the rest takes.
    snapshot.events.close();
    await closeMembers(this.#context, [...snapshot.members.values()]);
    await snapshot.storage.close();
    this.#snapshots.delete(snapshot.id);
    this.#logger.info({ snapshot: snapshot.id }, "snapshot destroyed");
  }

  #onNotice(reactor: number, notice: ReactorNotice): void {
    if (notice.notice === "error") this.#logger.error({ reactor }, notice.message);
    if (!("tracker" in notice)) return;
    const tracker = this.#trackers.get(notice.tracker);
    const snapshot = tracker && this.#snapshotOf(tracker);
    if (tracker === undefined || snapshot === undefined) return;
    switch (notice.notice) {
      case "slots":
        void snapshot.serveSlots(tracker, notice.wanted);
        return;
      case "freed":
        snapshot.freeSlots(notice.slots);
        return;
      case "fault":
        this.#logger.warn({ device: tracker.device, errno: notice.errno }, "snapshot lost data");
        snapshot.fault(tracker, notice.errno);
        return;
      case "holdExpired":
        this.#logger.error({ device: tracker.device }, "a hold of writes expired");
        return;
    }
  }

  #findTracker(device: string): Tracker | undefined {
    const identity = identityOf(device);
    return [...this.#trackers.values()].find((tracker) => tracker.hasIdentity(identity));
  }

  #tracker(device: string): Tracker {
    const tracker = this.#findTracker(device);
    if (tracker === undefined) throw new ControlError("NOT_ATTACHED", `${device} is not attached`);
    return tracker;
  }

  #snapshot(id: string): Snapshot {
    const snapshot = this.#snapshots.get(id.toLowerCase());
    if (snapshot === undefined || snapshot.state === "destroying") throw notFound(id);
    return snapshot;
  }

  #snapshotOf(tracker: Tracker): Snapshot | undefined {
    return [...this.#snapshots.values()].find((snapshot) => snapshot.members.has(tracker.id));
  }

  /** @throws ControlError when the device is in a snapshot already */
  #assertFree(tracker: Tracker, wanted?: Snapshot): void {
    const snapshot = this.#snapshotOf(tracker);
    if (snapshot === undefined) return;
    const what = `${tracker.device} is in snapshot ${snapshot.id}`;
    if (snapshot === wanted) throw new ControlError("DEVICE_ALREADY_IN_SNAPSHOT", what);
    throw new ControlError("DEVICE_IN_OTHER_SNAPSHOT", what);
  }

  #refuseOwnImage(path: string): void {
    const identity = identityOf(path);
    for (const snapshot of this.#snapshots.values()) {
      for (const { image } of snapshot.members.values()) {
        if (image !== undefined && identity === `block:${image.deviceNumber}`) {
          throw new ControlError(
            "DEVICE_IS_OURS",
            `${path} is the image of snapshot ${snapshot.id}`,
          );
        }
      }
    }
  }

  #statusSource(): StatusSource {
    return {
      startedAt: this.#startedAt,
      reactors: this.#reactors,
      trackers: this.#trackers.values(),
      snapshots: this.#snapshots.values(),
      snapshotOf: (tracker) => this.#snapshotOf(tracker),
    };
  }
}

function notFound(id: string): ControlError {
  return new ControlError("SNAPSHOT_NOT_FOUND", `there is no snapshot ${id}`);
}

/** Errors of the packages below come out under the names of the API. */
async function named<Value>(work: Promise<Value>): Promise<Value> {
  try {
    return await work;
  } catch (error) {
    throw asControlError(error);
  }
}
