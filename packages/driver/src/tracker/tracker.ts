/**
 * A tracked device, as the main thread sees it.
 *
 * ```
 *   attach   original ─▶ CBT map ─▶ ublk device ─▶ record ─▶ queue on a reactor ─▶ front ─▶ link
 *   detach   the reverse, and only when nothing uses the front
 *   recover  record ─▶ original, fenced ─▶ CBT map ─▶ queue on a reactor ─▶ front resumes
 * ```
 */

import { faultPoint } from "@blksnap/data-plane";
import type { CbtMap, TrackerGeometry } from "@blksnap/engine";
import { blockIdentity, type DeviceOrFile, keyOfNumber, Splice } from "@blksnap/linux-block";
import {
  type BackingFile,
  closeBackingFile,
  openBackingFileBeside,
  RECOVERY_PATIENCE_MS,
} from "@blksnap/ublk";
import { Serial } from "@blksnap/uring";
import type { DriverContext } from "../context.js";
import type { ServedDevice } from "../frontend/frontend.js";
import { StateFile } from "../records/file-names.js";
import type { TrackerRecord } from "../records/records.js";
import { linkFront } from "../system/device-names.js";
import { openCbt, renewCbt } from "./cbt-file.js";
import { FrontFlush } from "./front-flush.js";
import { assignReactor, frontQueue, mayPassPages } from "./front-queue.js";
import { assertNotZoned, geometryOf, geometryWith, servedParams } from "./geometry.js";
import { growFront } from "./growth.js";
import { identityOfBacking, placeOf, reopenOriginal } from "./original.js";
import { PresentCapacity } from "./present-capacity.js";
import { type PersistenceState, TrackerJournal } from "./tracker-journal.js";
import { TrackerMap } from "./tracker-map.js";
import type { AttachOptions, DetachOptions, LeftArea, TrackerParts } from "./tracker-options.js";
import { type Loss, lossOn, NO_LOSS, writeTrackerRecord } from "./tracker-record.js";
import { runUndo, takeBack, type Undo } from "./undo.js";

export class Tracker {
  readonly id: number;
  readonly identity: string;
  readonly reactor: number;
  readonly front: ServedDevice;
  /** The splice of a front under a node that is in use; undefined if users mount the front itself. */
  readonly splice: Splice | undefined;
  /** True if it continues the diff area of an earlier daemon. */
  hasOldArea = false;
  #loss: Loss = NO_LOSS;
  readonly #rotations = new Serial();
  /** Its front is going away, and with it everything that the reactor has of it. */
  isEnding = false;
  isDetaching = false;
  get geometry(): TrackerGeometry {
    return this.#map.geometry;
  }
  /** Reads the frozen map, beside the reactor, which owns it. */
  get cbt(): CbtMap {
    return this.#map.cbt;
  }
  get isGone(): boolean {
    return this.#map.isGone;
  }
  readonly #flush: FrontFlush;
  #hasEnded = false;
  /** Its front ended before its detach. */
  #wasWithoutFront = false;
  readonly #context: DriverContext;
  readonly #map: TrackerMap;
  readonly #journal: TrackerJournal | undefined;
  #backing: BackingFile;
  readonly #capacity: PresentCapacity;
  #link: string | undefined;

  private constructor(context: DriverContext, parts: TrackerParts, front: ServedDevice) {
    this.#context = context;
    this.id = parts.id;
    this.identity = parts.identity;
    this.#backing = parts.backing;
    this.#capacity = new PresentCapacity(parts.backing);
    this.reactor = parts.reactor;
    this.front = front;
    this.splice = parts.splice;
    if (this.splice !== undefined) this.splice.front = front.deviceNumber;
    this.#flush = new FrontFlush(this, context.logger);
    this.#map = new TrackerMap(parts);
    this.#journal = parts.journal;
    this.#link = linkFront(context.frontend, this.device, front.path);
  }

  /**
   * Puts a front before the device. Leaves nothing behind if it fails.
   * @throws ControlError DEVICE_…, OUT_OF_MEMORY; UblkError
   */
  static async attach(
    context: DriverContext,
    id: number,
    path: string,
    options: AttachOptions,
  ): Promise<Tracker> {
    const undo: Undo = [];
    try {
      const opened = await openBackingFileBeside(options.openAt ?? path);
      const backing = { ...opened, path };
      undo.push(() => closeBackingFile(backing));
      const identity = identityOfBacking(backing);
      assertNotZoned(backing);
      const wanted = geometryOf(backing, context.parameters);
      const cbt = await TrackerJournal.attach(context, id, backing, wanted, options, undo);
      const geometry = geometryWith(wanted, cbt.chunkShift);
      const reactor = assignReactor(context, undo);
      const parts = { id, identity, backing, geometry, reactor, ...cbt, splice: options.splice };
      const area = cbt.areaContinues ? options.area : undefined;
      options.onReady?.();
      undo.push(() => context.state.removeRecord(StateFile.trackerRecord.name(id)));
      faultPoint("attach.map-made");
      const front = await context.frontend.start({
        params: backing.params,
        queueDepth: context.frontDepth,
        maxIoBytes: context.maxIoBytes,
        zeroCopyIoBytes: context.zeroCopyIoBytes,
        zeroCopy: mayPassPages(context, reactor),
        // The partitions of a front under a device-mapper node would be a second way to its bytes.
        hasPartitions: parts.splice === undefined,
        onNumber: (made) => {
          options.onFront?.(made.id);
          faultPoint("attach.device-added");
          writeTrackerRecord(context.state, { ...parts, recordUuid: parts.journal?.uuid }, made);
          faultPoint("attach.recorded");
        },
        ...frontQueue(context, parts, "attach.queue-started", area),
      });
      undo.push(() => front.stop());
      faultPoint("attach.front-live");
      const tracker = new Tracker(context, parts, front);
      tracker.hasOldArea = area !== undefined;
      await tracker.#serve();
      return tracker;
    } catch (error) {
      await takeBack(undo, context.logger, path);
      throw error;
    }
  }

  /**
   * Resumes a tracker of an earlier daemon.
   * @param left of its diff area, if it is in a snapshot that was taken
   * @param patienceMs how long to wait for the old server's last requests
   * @throws UblkError CONTROL_FAILED if its front is gone; ControlError
   */
  static async recover(
    context: DriverContext,
    record: TrackerRecord,
    left: LeftArea | undefined,
    patienceMs: number = RECOVERY_PATIENCE_MS,
  ): Promise<Tracker> {
    const undo: Undo = [];
    try {
      const { id, geometry } = record;
      const { backing, identity, wasAway } = await reopenOriginal(
        context,
        record,
        patienceMs,
        undo,
      );
      faultPoint("recover.original-opened");
      const area = wasAway ? undefined : left?.sleeping;
      const open = wasAway ? renewCbt : openCbt;
      const cbt = await open(context, id, geometry, undo);
      const reactor = assignReactor(context, undo);
      const journal =
        record.uuid === undefined
          ? undefined
          : await TrackerJournal.resume(context, backing, record.uuid, geometry.chunkShift, cbt);
      undo.push(() => journal?.close());
      const splice = Splice.onRecord(record);
      const parts = { id, identity, backing, geometry, reactor, ...cbt, journal, splice };
      const queue = frontQueue(context, parts, "recover.queue-started", area, left?.kept);
      const { frontDepth: queueDepth, maxIoBytes } = context;
      const served = { ...queue, params: servedParams(backing, geometry), queueDepth, maxIoBytes };
      const front = await context.frontend.resume(
        record.front,
        { ...served, onBegun: () => faultPoint("recover.begun") },
        patienceMs,
      );
      faultPoint("recover.front-live");
      // An attach makes the link last: the old daemon did not get that far.
      if (splice === undefined && !context.frontend.links.has(backing.path, front.path)) {
        await context.frontend.makePartitions(front);
      }
      const tracker = new Tracker(context, parts, front);
      tracker.hasOldArea = area !== undefined;
      tracker.#loss = lossOn(record);
      if (splice !== undefined) splice.state = "on";
      if (identity !== record.identity || wasAway) tracker.#writeRecord();
      void tracker.#serve();
      return tracker;
    } catch (error) {
      await takeBack(undo, context.logger, record.device);
      throw error;
    }
  }

  get backing(): BackingFile {
    return this.#backing;
  }

  /** The original's path as given to attach; for a live attach, the node's present name. */
  get device(): string {
    return this.#backing.path;
  }

  /** Records the new name of its node, for the next daemon, too. */
  followName(): void {
    if (this.splice === undefined) return;
    this.#backing = { ...this.#backing, path: this.splice.path };
    // By then, whatever leads to its front has been given back, or is about to be.
    if (this.#hasEnded || !this.front.isLive) return;
    this.#context.frontend.links.remove(this.#link, this.front.path);
    this.#link = linkFront(this.#context.frontend, this.device, this.front.path);
    this.#writeRecord();
  }

  /** What its last snapshot has lost. */
  get loss(): Loss {
    return this.#loss;
  }

  /** @param loss NO_LOSS: another snapshot begins */
  recordLoss(loss: Loss): void {
    this.#loss = loss;
    this.#writeRecord();
  }

  /** A table that leads to its front exists: it counts as such from now on, for the next daemon, too. */
  noteLink(): void {
    this.splice?.noteLink(this.front.id ?? -1);
    this.#writeRecord();
  }

  /** Records whether its node should lead to its front, for the next daemon: see Splice.noteMade(). */
  noteMade(isMade: boolean): void {
    if (this.splice?.noteMade(isMade) === true) this.#writeRecord();
  }

  /** If the record cannot be written, this process still knows: the front must not suffer. */
  #writeRecord(): void {
    if (!this.front.isLive) return;
    try {
      writeTrackerRecord(this.#context.state, this, this.front, this.#loss);
    } catch (error) {
      this.#context.logger.warn({ device: this.device, err: error }, "its record was not written");
    }
  }

  get persistence(): PersistenceState {
    return this.#journal?.state ?? { state: "off", why: null };
  }

  /** The record of a persistent tracker, if it is really kept. */
  get uuid(): string | undefined {
    return this.persistence.state === "on" ? this.recordUuid : undefined;
  }

  get recordUuid(): string | undefined {
    return this.#journal?.uuid;
  }

  /**
   * A persistent tracker's journal is half full, and writes wait once it is full: so this waits for nothing that itself
   * waits for writes.
   */
  rotateJournal(): Promise<void> {
    return this.#rotations.run(async () => {
      if (!this.isEnding) await this.#journal?.rotate(this.id, this.reactor);
    });
  }

  #serve(): Promise<void> {
    return this.#rotations.run(async () => {
      if (!this.isEnding && this.front.isLive) await this.#journal?.serve();
    });
  }

  /** Records the start of the original, for a persistent tracker. */
  noteStart(start: Uint8Array): Promise<void> {
    return this.#rotations.run(async () => {
      if (!this.isEnding) await this.#journal?.noteStart(start);
    });
  }

  /** Runs an operation that no rotation may interrupt. It must not need more than half of the log. */
  withoutRotation<Value>(operation: () => Promise<Value>): Promise<Value> {
    return this.#rotations.run(operation);
  }

  /** A persistent tracker's journal could not be written; its writes wait. */
  async failJournal(errno: number): Promise<void> {
    await this.#journal?.fail(this.id, this.reactor, errno);
  }

  /** Resolves when everything written and taken so far is on record. */
  async commitJournal(): Promise<void> {
    await this.#journal?.commit(this.id, this.reactor);
  }

  /** Where the original's data is, whatever its name. */
  get place(): DeviceOrFile {
    return placeOf(this.identity, this.backing);
  }

  /** "major:minor" of the original; null for a regular file. */
  get deviceNumber(): string | null {
    if (this.splice !== undefined) return this.splice.node.number;
    const { kind, deviceNumber } = this.backing;
    return kind === "block" ? keyOfNumber(deviceNumber) : null;
  }

  /** Whether a path with this identity means this device. */
  hasIdentity(identity: string): boolean {
    if (identity === this.identity || this.splice?.hasIdentity(identity) === true) return true;
    return this.front.isLive && identity === blockIdentity(this.front.deviceNumber);
  }

  /** Its front is gone, and everything that belonged to it. */
  get hasEnded(): boolean {
    return this.#hasEnded;
  }

  /**
   * Ends the front. Once it is gone, everything that the tracker has is released, whatever fails.
   * @throws ControlError FRONT_IN_USE: mounted, or opened exclusively; DEVICE_FAILED, only once: the last writes cannot
   * reach the original; after the end of the front, the first failure
   */
  async detach(options: DetachOptions = {}): Promise<void> {
    const { forget = false, attachAgain = false, giveUp = false, closing = false } = options;
    const leave = () => this.#journal?.leave(attachAgain && !forget);
    if (this.front.isLive) await this.#endFront(giveUp, leave);
    else await this.withoutRotation(() => this.#stopFront());
    const isLate = this.#wasWithoutFront;
    const { state, reactors, frontend } = this.#context;
    const failures: unknown[] = [];
    const steps: Undo = [
      () => reactors.release(this.reactor),
      () => closeBackingFile(this.backing),
      () => options.onClosing?.(),
      () => faultPoint("detach.map-removed"),
      () => this.#map.end(state),
      () =>
        forget ? this.#journal?.forget() : this.#journal?.end(attachAgain, { closing, isLate }),
      () => faultPoint("detach.record-removed"),
      () => state.removeRecord(StateFile.trackerRecord.name(this.id)),
      () => faultPoint("detach.link-removed"),
      () => frontend.links.remove(this.#link, this.front.path),
      () => faultPoint("detach.front-stopped"),
    ];
    await runUndo(steps, (error) => failures.push(error));
    if (failures.length > 0) throw failures[0];
  }

  /** Its queue has ended. Returns whether another program has ended the front. */
  noteFrontEnd(): boolean {
    const isByOthers = this.front.noteEnd(() => {
      this.#context.frontend.links.remove(this.#link, this.front.path);
      // A daemon that resumed this number could put this original behind another device's front.
      this.#context.state.removeRecord(StateFile.trackerRecord.name(this.id));
    });
    if (!isByOthers) return false;
    this.#wasWithoutFront = true;
    void this.#rotations.run(async () => this.#journal?.leave(true));
    return true;
  }

  /** For a front that exists. @param leave records that it is going */
  async #endFront(giveUp: boolean, leave: () => Promise<void> | undefined): Promise<void> {
    const release = await this.front.hold();
    this.isDetaching = true;
    try {
      await this.#flush.run(giveUp);
      faultPoint("detach.front-synced");
      await this.withoutRotation(async () => {
        await leave();
        faultPoint("detach.front-left");
        await this.#stopFront();
      });
    } finally {
      await release();
      this.isDetaching = false;
    }
  }

  async #stopFront(): Promise<void> {
    this.isEnding = true;
    try {
      await this.front.stop();
      this.#hasEnded = true;
    } catch (error) {
      this.isEnding = false;
      // How much of the front is left is unknown.
      this.#wasWithoutFront = true;
      throw error;
    }
  }

  /** Has the front follow an original that has become larger. @throws as growFront() */
  grow(): Promise<void> {
    return this.#rotations.run(() => growFront(this.#context, this, this.#map, this.#journal));
  }

  /** The original's present size in bytes; 0 if it is gone. */
  presentCapacityBytes(): Promise<number> {
    return this.#capacity.get();
  }

  /** @param ranges offset and length in bytes, alternating */
  async markDirty(ranges: readonly number[]): Promise<void> {
    const request = { type: "markDirty", tracker: this.id, ranges } as const;
    await this.#context.reactors.request(this.reactor, request);
  }
}
