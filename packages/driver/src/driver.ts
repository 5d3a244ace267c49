/**
 * The driver: trackers, snapshots and the reactors that serve them. It implements the operations of the control API,
 * and can be used without the daemon.
 */

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
  SnapshotCreateResponse,
  SnapshotEvent,
  SnapshotInfo,
  SnapshotStatus,
  SnapshotSummary,
  SnapshotTakeOptions,
  SnapshotTakeResponse,
  StatusResponse,
  TrackerStatus,
  VersionResponse,
} from "@blksnap/api";
import { driverMetrics } from "@blksnap/api";
import { DeviceReader, ReactorPool } from "@blksnap/data-plane";
import type { UblkControl } from "@blksnap/ublk";
import type { PromiseRing } from "@blksnap/uring";
import type { Logger } from "pino";
import { type DriverContext, openContext } from "./context.js";
import { closeLocks, endAll, endLive, snapshotLock } from "./driver-end.js";
import { type Handover, readHandover, writeHandover } from "./handover.js";
import { type DeviceInUse, devicesInUse } from "./in-use.js";
import { NbdExports } from "./nbd-exports.js";
import { assertSatisfies, attachAnswer } from "./operations/attached.js";
import { markDirty, markDirtyFile, readMap } from "./operations/cbt-operations.js";
import { diffSince } from "./operations/diff.js";
import { detachForGood } from "./operations/remembered.js";
import { Operations } from "./operations/serialised.js";
import { SnapshotOperations } from "./operations/snapshot-operations.js";
import { TrackerOperations } from "./operations/tracker-operations.js";
import { type DriverPorts, machinePorts } from "./ports.js";
import { ReactorEvents } from "./reactor-events.js";
import { recoverAfterCrash } from "./recovery/after-crash.js";
import { HeldBack } from "./recovery/held-back.js";
import { LateRecovery } from "./recovery/late-recovery.js";
import { Registry, snapshotNotFound } from "./registry.js";
import { type DriverOptions, type DriverSettings, settingsOf } from "./settings.js";
import type { Snapshot } from "./snapshot/snapshot.js";
import {
  cbtInfo,
  driverStatus,
  driverVersion,
  type StatusSource,
  snapshotInfo,
  snapshotStatus,
  snapshotSummary,
  trackerStatus,
} from "./status.js";
import { named } from "./system/errors.js";
import { warmUp } from "./tracker/front-queue.js";
import { type GrowthWatch, watchGrowth } from "./tracker/growth-watch.js";
import { MountWatch, ringStartReader } from "./tracker/mount-watch.js";
import { nodeChanges } from "./tracker/splice-watch.js";
import type { Tracker } from "./tracker/tracker.js";

export type { DeviceInUse, DriverOptions };

export class Driver implements DriverControl {
  readonly #startedAt = new Date();
  readonly #logger: Logger;
  readonly #ports: DriverPorts;
  readonly #ring: PromiseRing;
  readonly #ublk: UblkControl | undefined;
  readonly #reactors: ReactorPool;
  readonly #settings: DriverSettings;
  #context!: DriverContext;
  #trackers!: TrackerOperations;
  #snapshots!: SnapshotOperations;
  #late!: LateRecovery;
  /** Holds back all attaches while there is a front without a record. */
  held!: HeldBack;
  #mounts!: MountWatch;
  #growth!: GrowthWatch;
  readonly #registry: Registry;
  readonly #operations: Operations;
  readonly #reactorEvents: ReactorEvents;
  #handover: Handover | null = null;
  readonly #devices: DeviceReader;
  /** The NBD exports; the caller that listens for connections sets its socketPath. */
  readonly nbd: NbdExports;

  private constructor(options: DriverOptions, ports: DriverPorts, ublk?: UblkControl) {
    this.#logger = options.logger;
    this.#ports = ports;
    this.#ring = ports.openRing();
    this.#registry = new Registry(
      ports.blockDevices,
      () => this.#late.waiting.map(({ record }) => record),
      (tracker) => this.#reactorEvents.actOnUnclaimed(tracker),
      () => this.#trackers.look(),
      ublk === undefined,
    );
    this.#operations = new Operations(this.#registry);
    this.nbd = new NbdExports(this.#registry, () => this.#context);
    this.#ublk = ublk;
    this.#settings = settingsOf(options);
    this.#reactorEvents = new ReactorEvents(this.#registry, this.#logger, ({ id, reactor }, area) =>
      this.#reactors.request(reactor, { type: "dropArea", tracker: id, area }),
    );
    this.#reactors = new ReactorPool({
      ...this.#settings,
      isFlusherOptional: this.#settings.frontend === "nbd",
      onNotice: (reactor, notice) => this.#reactorEvents.onNotice(reactor, notice),
      startReactor: ports.startReactor,
      lostStatus: options.reactorLostStatus,
      onLost: (reactor, error) => {
        this.#logger.fatal({ reactor, err: error }, "a reactor has ended");
        this.#registry.releaseDevicesOf(reactor);
        options.onReactorLost?.(reactor);
      },
    });
    this.#devices = new DeviceReader(this.#reactors);
  }

  /**
   * Takes over the state directory and resumes everything that an earlier daemon has left.
   * @param ports replacements for parts of this machine
   * @throws ControlError UBLK_UNAVAILABLE, DEVICE_NOT_PERMITTED, ALREADY_RUNNING
   */
  static async start(options: DriverOptions, ports: DriverPorts = machinePorts()): Promise<Driver> {
    const ublk = options.frontend === "nbd" ? undefined : await named(ports.openUblk());
    const driver = new Driver(options, ports, ublk);
    try {
      await driver.#reactors.ready();
      await options.untilTurn?.();
      await driver.#takeOver();
      warmUp(driver.#reactors, driver.#settings, ublk);
      return driver;
    } catch (error) {
      await driver.#close();
      throw error;
    }
  }

  /** Fronts and images in use: mounted, held by another device, or just open. */
  devicesInUse(): Promise<DeviceInUse[]> {
    return devicesInUse(this.#registry, this.#context.frontend);
  }

  /**
   * Accepts no more operations, waits a while for running ones, and leaves all devices to the next daemon: their users
   * wait for it. The process must exit now, without stop().
   */
  async leave(): Promise<void> {
    this.#late.stop();
    this.held.stop();
    this.#growth.stop();
    this.#trackers.stopWatch(true);
    const running = await closeLocks(this.#operations.locks);
    if (running.length > 0) {
      const text = "these operations have not ended: the next daemon finishes or undoes them";
      this.#logger.error({ running }, text);
      this.#trackers.uncountReturns();
    }
    writeHandover(this.#context.state, this.#logger);
  }

  /**
   * Detaches what is attached live, because its users would wait after the daemon's end. If one may not leave, all
   * stay. Returns descriptions of what stays.
   * @param eachAlone detaches all that can be, even if others stay
   */
  leadBack(eachAlone = false): Promise<readonly string[]> {
    const { locks } = this.#operations;
    return endLive(this.#registry, locks, this.#snapshots, this.#trackers, eachAlone);
  }

  /**
   * Destroys all snapshots, detaches all devices and ends the reactors. Returns descriptions of what did not end: it is
   * left to the next daemon, and the process must exit at once.
   * @param closing the system goes down, and no program is left that could write to the devices
   * @param onEnded called when everything has ended, before another daemon can own the state directory
   * @param keepsAway keeps the records of volumes that are to be attached again: no user has asked for this end
   */
  async stop(closing = false, onEnded?: () => void, keepsAway = false): Promise<readonly string[]> {
    this.#late.stop();
    this.held.stop();
    this.#mounts.stop();
    this.#growth.stop();
    this.#trackers.stopWatch(keepsAway);
    const left = await endAll({
      registry: this.#registry,
      locks: this.#operations.locks,
      endSnapshot: (snapshot) =>
        snapshot.persistence.isOn
          ? this.#snapshots.suspend(snapshot)
          : this.#snapshots.destroy(snapshot),
      detach: (tracker) =>
        this.#trackers.detach(tracker, { attachAgain: true, giveUp: true, closing }),
      progress: () => this.#devices.bytesWritten(this.#registry.trackers.values()),
      suspendedNodes: () => this.#trackers.suspendedNodes(),
    });
    if (left.length > 0) return left;
    onEnded?.();
    this.#context.state.close();
    this.#context.persistent.close();
    await this.#close();
    return [];
  }

  async version(): Promise<VersionResponse> {
    return driverVersion();
  }

  status(): Promise<StatusResponse> {
    this.#trackers.look();
    return driverStatus(this.#statusSource());
  }

  metrics(): Promise<readonly MetricFamily[]> {
    return this.status().then(driverMetrics);
  }

  attach(device: string, options: AttachRequestOptions = {}): Promise<AttachResponse> {
    const { persistent = false, kind } = options;
    return this.#operations.onDevices("attach of", [device], async () => {
      const known = await this.#registry.findTracker(device);
      if (known === undefined) await this.#late.assertNotWaiting(device);
      else assertSatisfies(known, persistent);
      const tracker = known ?? (await this.#trackers.attach(device, { persistent }, kind));
      return attachAnswer(tracker, known !== undefined);
    });
  }

  detach(device: string, options: DetachRequestOptions = {}): Promise<DetachResponse> {
    const ending = () => this.#trackers.detachAt(device, options);
    const end = () => this.#late.giveUpOr(device, ending, options.forget);
    const detach = () => this.#operations.onDevices("detach of", [device], end);
    return options.forget ? detachForGood(this.#context, this.#registry, device, detach) : detach();
  }

  async cbtInfo(device: string): Promise<CbtInfo> {
    return cbtInfo(await this.#registry.intact(device));
  }

  async readCbtMap(device: string, firstBlock: number, count: number): Promise<Uint8Array> {
    return readMap((await this.#registry.intact(device)).cbt, firstBlock, count);
  }

  markDirty(device: string, ranges: readonly ByteRange[]): Promise<MarkDirtyResponse> {
    return markDirty(this.#registry, device, ranges);
  }

  markDirtyFile(file: string, device?: string): Promise<MarkDirtyFileResponse> {
    return markDirtyFile(this.#registry, file, device);
  }

  async diff(device: string, since: number): Promise<DiffAnswer> {
    return diffSince(await this.#registry.intact(device), since);
  }

  async trackerStatus(device: string): Promise<TrackerStatus> {
    return trackerStatus(this.#statusSource(), await this.#registry.tracker(device));
  }

  async snapshotInfo(device: string): Promise<SnapshotInfo> {
    const tracker = await this.#registry.tracker(device);
    return snapshotInfo(tracker, this.#registry.snapshotOf(tracker), this.nbd);
  }

  async snapshotCreate(
    ...[options, signal, onProgress]: Parameters<DriverControl["snapshotCreate"]>
  ): Promise<SnapshotCreateResponse> {
    const create = () => this.#snapshots.create(options, signal, onProgress);
    return this.#operations.onDevices("snapshot_create of", options.devices, create, { signal });
  }

  async snapshotAdd(id: string, device: string): Promise<SnapshotAddResponse> {
    // Before the device is queried, which may take long.
    this.#registry.snapshot(id);
    const operation = async () => {
      const tracker = await this.#snapshots.add(id, device);
      return { id, device: tracker.device, front: tracker.front.path };
    };
    return this.#operations.onDevices("snapshot_add of", [device], operation, {
      others: [snapshotLock(id)],
    });
  }

  snapshotTake(id: string, options?: SnapshotTakeOptions): Promise<SnapshotTakeResponse> {
    const operation = () => this.#snapshots.take(id, options);
    return this.#operations.onSnapshot("snapshot_take of", id, operation);
  }

  snapshotDestroy(id: string): Promise<void> {
    return this.#operations.onSnapshot("snapshot_destroy of", id, () =>
      this.#snapshots.destroy(this.#registry.snapshotToDestroy(id)),
    );
  }

  async snapshotCollect(): Promise<readonly SnapshotSummary[]> {
    return [...this.#registry.snapshots.values()].map(snapshotSummary);
  }

  async snapshotStatus(id: string): Promise<SnapshotStatus> {
    return snapshotStatus(this.#devices, this.#lookedAt(id), this.nbd);
  }

  async waitEvent(
    id: string,
    timeoutMs: number,
    signal: AbortSignal,
    reader?: string,
  ): Promise<SnapshotEvent | undefined> {
    const { events } = this.#lookedAt(id);
    const event = await named(events.wait(timeoutMs, signal, reader));
    if (event === "closed") throw snapshotNotFound(id);
    return event;
  }

  async listEvents(id: string): Promise<readonly SnapshotEvent[]> {
    return this.#lookedAt(id).events.list();
  }

  async followEvents(
    id: string,
    from: number,
    signal: AbortSignal,
  ): Promise<AsyncIterable<SnapshotEvent>> {
    return this.#lookedAt(id).events.follow(from, signal);
  }

  /** Checks live nodes first, so that the answer shows losses by them. @throws ControlError SNAPSHOT_NOT_FOUND */
  #lookedAt(id: string): Snapshot {
    this.#trackers.look();
    return this.#registry.snapshot(id);
  }

  async #takeOver(): Promise<void> {
    const takenOverMs = Date.now();
    this.#context = await openContext(this.#settings, this.#ports, {
      ublk: this.#ublk,
      reactors: this.#reactors,
      ring: this.#ring,
      exports: this.nbd,
    });
    const { addTracker, trackers: watched } = this.#registry;
    const recovered = await recoverAfterCrash(this.#context, {
      tracker: (tracker) => {
        addTracker(tracker);
        this.#reactorEvents.retry();
      },
      snapshot: (snapshot) => this.#registry.snapshots.set(snapshot.id, snapshot),
      lost: ({ id }) => this.#registry.snapshots.delete(id),
      progressed: () => this.#reactorEvents.retry(),
    });
    const { trackers, snapshots, lastTracker } = recovered;
    this.#registry.unknown = recovered.unknown;
    const { locks } = this.#operations;
    const onLate = (tracker: Tracker) => this.#trackers.addLate(tracker);
    this.#late = new LateRecovery(this.#context, recovered, locks, onLate);
    this.#trackers = new TrackerOperations(this.#context, this.#registry, lastTracker);
    this.#snapshots = new SnapshotOperations(this.#context, this.#registry, this.#trackers);
    this.#reactorEvents.begin();
    this.#mounts = new MountWatch(() => watched.values(), ringStartReader(this.#ring));
    this.#growth = watchGrowth(this.#registry, this.#devices, locks, this.#logger);
    await this.#trackers.recoverLive(this.#reactorEvents, locks, nodeChanges(this.#ring));
    this.held = new HeldBack(recovered.unknown);
    this.#handover = readHandover(this.#context.state);
    if (trackers.length === 0) return;
    const recoveryMs = Date.now() - takenOverMs;
    const counts = { trackers: trackers.length, snapshots: snapshots.length, recoveryMs };
    this.#logger.info({ ...counts, handover: this.#handover }, "serving again");
  }

  async #close(): Promise<void> {
    await this.#reactors.stop();
    this.#ring.close();
    this.#ublk?.close();
  }

  #statusSource(): StatusSource {
    return {
      startedAt: this.#startedAt,
      handover: this.#handover,
      configuration: this.#settings.configuration?.(),
      reactors: this.#reactors,
      devices: this.#devices,
      trackers: this.#registry.trackers.values(),
      waiting: this.#late.waiting,
      away: this.#trackers.away,
      snapshots: this.#registry.snapshots.values(),
      snapshotOf: (tracker) => this.#registry.snapshotOf(tracker),
      growth: this.#growth,
      exports: this.nbd,
      nameOf: (front) => this.#context.frontend.nameOf(front),
    };
  }
}
