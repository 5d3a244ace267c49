/**
 * A tracked device, as the main thread sees it.
 *
 * ```
 *   attach   original ─▶ CBT map ─▶ ublk device ─▶ record ─▶ queue on a reactor ─▶ front ─▶ link
 *   detach   the reverse, and only when nobody uses the front
 *   recover  record ─▶ original, fenced ─▶ CBT map ─▶ queue on a reactor ─▶ front goes on
 * ```
 */
import { randomFillSync } from "node:crypto";
import { closeSync, constants, fsyncSync, openSync } from "node:fs";
import {
  CbtMap,
  CbtReason,
  CHUNK_SHIFT_DEFAULT,
  cbtBlockShift,
  type TrackerGeometry,
} from "@blksnap/engine";
import { type BackingFile, major, minor, openBackingFile, type UblkControl } from "@blksnap/ublk";
import { MappedMemory } from "@blksnap/uring";
import { ControlError } from "../control/control-error.js";
import { type FaultPoint, faultPoint } from "../fault-points.js";
import { blockShiftOf, chunkShiftOf, type TrackingParameters } from "../parameters.js";
import type { AreaSetup } from "../reactor/messages.js";
import type { ReactorPool } from "../reactor/pool.js";
import type { TrackedDeviceCounters } from "../reactor/tracked-device.js";
import { type TrackerRecord, trackerRecordName } from "../state/records.js";
import type { MapFile, StateDirectory } from "../state/state-directory.js";
import { addLink, linkName, removeLink } from "../system/links.js";
import { type QueueStart, ServedDevice } from "../system/served-device.js";
import { openFenced } from "./fence.js";
import { blockIdentity, identityOf } from "./identity.js";

const CAPACITY_MIN_BYTES = 2 ** CHUNK_SHIFT_DEFAULT;

/** What trackers share. */
export interface TrackerContext {
  readonly control: UblkControl;
  readonly reactors: ReactorPool;
  readonly state: StateDirectory;
  readonly frontDepth: number;
  readonly maxIoBytes: number;
  readonly parameters: TrackingParameters;
}

/** What a tracker is made of before it has a front. */
interface TrackerParts {
  readonly id: number;
  readonly identity: string;
  readonly backing: BackingFile;
  readonly geometry: TrackerGeometry;
  readonly reactor: number;
  readonly cbtFile: MapFile;
  readonly cbtMemory: MappedMemory;
}

type Undo = (() => void)[];

export class Tracker {
  readonly id: number;
  /** The original's path, as attach was given it. */
  readonly device: string;
  readonly identity: string;
  readonly backing: BackingFile;
  readonly geometry: TrackerGeometry;
  readonly reactor: number;
  readonly front: ServedDevice;
  /** Reads the frozen map beside the reactor, which owns it. */
  readonly cbt: CbtMap;
  #errorCode = 0;
  readonly #context: TrackerContext;
  readonly #cbtFile: MapFile;
  readonly #cbtMemory: MappedMemory;
  readonly #link: string | undefined;

  private constructor(context: TrackerContext, parts: TrackerParts, front: ServedDevice) {
    this.#context = context;
    this.id = parts.id;
    this.device = parts.backing.path;
    this.identity = parts.identity;
    this.backing = parts.backing;
    this.geometry = parts.geometry;
    this.reactor = parts.reactor;
    this.front = front;
    this.cbt = CbtMap.open(parts.cbtMemory.buffer);
    this.#cbtFile = parts.cbtFile;
    this.#cbtMemory = parts.cbtMemory;
    this.#link = addLink(linkName(this.device), front.path);
  }

  /**
   * Puts a front before the device. Nothing is left behind when it fails.
   * @throws ControlError DEVICE_…, OUT_OF_MEMORY; UblkError
   */
  static async attach(context: TrackerContext, id: number, path: string): Promise<Tracker> {
    const undo: Undo = [];
    try {
      const identity = identityOf(path);
      const backing = openBackingFile(path);
      undo.push(() => closeSync(backing.fd));
      const geometry = geometryOf(backing, context.parameters);
      const cbt = createCbt(context, id, geometry, CbtReason.ATTACHED, undo);
      const reactor = assignReactor(context, undo);
      const parts = { id, identity, backing, geometry, reactor, ...cbt };
      undo.push(() => context.state.removeRecord(trackerRecordName(id)));
      faultPoint("attach.map-made");
      const front = await ServedDevice.start(context.control, {
        params: backing.params,
        queueDepth: context.frontDepth,
        maxIoBytes: context.maxIoBytes,
        onNumber: (number) => {
          faultPoint("attach.device-added");
          writeRecord(context, parts, number, 0);
          faultPoint("attach.recorded");
        },
        ...frontQueue(context, parts, "attach.queue-started"),
      });
      faultPoint("attach.front-live");
      return new Tracker(context, parts, front);
    } catch (error) {
      for (const step of undo.reverse()) step();
      throw error;
    }
  }

  /**
   * Goes on with a tracker of an earlier daemon.
   * @param area its diff area, where it is in a snapshot that was taken
   * @throws UblkError CONTROL_FAILED when its front is gone; ControlError
   */
  static async recover(
    context: TrackerContext,
    record: TrackerRecord,
    area: AreaSetup | undefined,
  ): Promise<Tracker> {
    const undo: Undo = [];
    try {
      const { id, identity, geometry } = record;
      const backing = await openFenced(record.device);
      undo.push(() => closeSync(backing.fd));
      if (identityOf(record.device) !== identity) {
        throw new ControlError("DEVICE_NOT_FOUND", `${record.device} is another device now`);
      }
      faultPoint("recover.original-opened");
      const cbt = openCbt(context, id, geometry, undo);
      const reactor = assignReactor(context, undo);
      const parts = { id, identity, backing, geometry, reactor, ...cbt };
      const queue = frontQueue(context, parts, "recover.queue-started", area);
      const front = await ServedDevice.recover(context.control, record.front, queue);
      faultPoint("recover.front-live");
      const tracker = new Tracker(context, parts, front);
      tracker.#errorCode = record.errorCode;
      return tracker;
    } catch (error) {
      for (const step of undo.reverse()) step();
      throw error;
    }
  }

  /** Negative errno of the last snapshot's first lost block; 0 while all is well. */
  get errorCode(): number {
    return this.#errorCode;
  }

  set errorCode(errorCode: number) {
    this.#errorCode = errorCode;
    writeRecord(this.#context, this, this.front.id, errorCode);
  }

  /** "major:minor" of the original; null for a regular file. */
  get deviceNumber(): string | null {
    if (this.backing.kind !== "block") return null;
    return `${major(this.backing.deviceNumber)}:${minor(this.backing.deviceNumber)}`;
  }

  /** Whether a path of this identity means this device. */
  hasIdentity(identity: string): boolean {
    return identity === this.identity || identity === blockIdentity(this.front.deviceNumber);
  }

  /**
   * Takes the front away.
   * @throws ControlError FRONT_IN_USE: mounted, or opened exclusively
   */
  async detach(): Promise<void> {
    const held = this.#holdFront();
    try {
      // What is still in the front's page cache belongs on the original.
      fsyncSync(held);
      faultPoint("detach.front-synced");
      await this.front.stop();
    } finally {
      closeSync(held);
    }
    faultPoint("detach.front-stopped");
    removeLink(this.#link, this.front.path);
    faultPoint("detach.link-removed");
    this.#context.state.removeRecord(trackerRecordName(this.id));
    faultPoint("detach.record-removed");
    this.#cbtMemory.unmap();
    this.#context.state.removeMap(this.#cbtFile);
    faultPoint("detach.map-removed");
    closeSync(this.backing.fd);
    this.#context.reactors.release(this.reactor);
  }

  /** True while the front is mounted or opened exclusively. */
  inUse(): boolean {
    try {
      closeSync(this.#holdFront());
      return false;
    } catch {
      return true;
    }
  }

  /** The reactor's counters of this device. */
  counters(): Promise<TrackedDeviceCounters> {
    const request = { type: "counters", tracker: this.id } as const;
    return this.#context.reactors.request<TrackedDeviceCounters>(this.reactor, request);
  }

  /** Opens the front exclusively: nobody can mount it while it goes away. */
  #holdFront(): number {
    try {
      return openSync(this.front.path, constants.O_RDWR | constants.O_EXCL);
    } catch (error) {
      throw new ControlError("FRONT_IN_USE", `the front ${this.front.path} is in use`, {
        cause: error,
      });
    }
  }
}

function geometryOf(backing: BackingFile, parameters: TrackingParameters): TrackerGeometry {
  const { capacityBytes, logicalBlockBytes, readOnly } = backing.params;
  if (readOnly) {
    throw new ControlError("DEVICE_READ_ONLY", `${backing.path} is read-only`);
  }
  if (capacityBytes < CAPACITY_MIN_BYTES) {
    throw new ControlError(
      "DEVICE_TOO_SMALL",
      `${backing.path} has ${capacityBytes} bytes, less than ${CAPACITY_MIN_BYTES}`,
    );
  }
  const blockShift = blockShiftOf(logicalBlockBytes);
  const chunkShift = chunkShiftOf(backing.params, parameters);
  return { capacityBytes, logicalBlockBytes, chunkShift, blockShift };
}

function assignReactor(context: TrackerContext, undo: Undo): number {
  const reactor = context.reactors.assign();
  undo.push(() => context.reactors.release(reactor));
  return reactor;
}

function createCbt(
  context: TrackerContext,
  id: number,
  geometry: TrackerGeometry,
  reason: number,
  undo: Undo,
) {
  const { capacityBytes } = geometry;
  const { parameters } = context;
  const blockShift = cbtBlockShift(capacityBytes, {
    minimumShift: parameters.trackingBlockMinimumShift,
    maximumCount: parameters.trackingBlockMaximumCount,
    maximumShift: parameters.trackingBlockMaximumShift,
  });
  const lengthBytes = CbtMap.byteLength(capacityBytes, blockShift);
  const cbtFile = context.state.createMap(`cbt-${id}`, lengthBytes);
  undo.push(() => context.state.removeMap(cbtFile));
  const cbtMemory = MappedMemory.file(cbtFile.fd, 0, lengthBytes);
  undo.push(() => cbtMemory.unmap());
  const generation = randomFillSync(new Uint8Array(16));
  CbtMap.create(cbtMemory.buffer, { capacityBytes, blockShift, generation, reason });
  return { cbtFile, cbtMemory };
}

/** The CBT map of an earlier daemon; where it cannot be used, a new one that says so. */
function openCbt(context: TrackerContext, id: number, geometry: TrackerGeometry, undo: Undo) {
  let cbtFile: MapFile | undefined;
  let cbtMemory: MappedMemory | undefined;
  try {
    cbtFile = context.state.openMap(`cbt-${id}`);
    cbtMemory = MappedMemory.file(cbtFile.fd, 0, cbtFile.lengthBytes);
    const { capacityBytes } = CbtMap.open(cbtMemory.buffer);
    if (capacityBytes !== geometry.capacityBytes) throw new Error("it is of another device");
    const opened = { cbtFile, cbtMemory };
    undo.push(() => closeSync(opened.cbtFile.fd));
    undo.push(() => opened.cbtMemory.unmap());
    return opened;
  } catch {
    cbtMemory?.unmap();
    if (cbtFile !== undefined) closeSync(cbtFile.fd);
    return createCbt(context, id, geometry, CbtReason.UNCLEAN, undo);
  }
}

type RecordParts = Pick<TrackerParts, "id" | "identity" | "backing" | "geometry">;

function writeRecord(
  context: TrackerContext,
  parts: RecordParts,
  front: number,
  errorCode: number,
): void {
  const { id, identity, geometry } = parts;
  const device = parts.backing.path;
  const record: TrackerRecord = { id, device, identity, front, geometry, errorCode };
  context.state.writeRecord(trackerRecordName(id), record);
}

function frontQueue(
  context: TrackerContext,
  parts: TrackerParts,
  started: FaultPoint,
  area?: AreaSetup,
) {
  const { reactors } = context;
  const { id: tracker, backing, geometry, cbtFile, reactor } = parts;
  return {
    startQueue: async (queue: QueueStart) => {
      await reactors.request(reactor, {
        type: "attach",
        tracker,
        queue,
        originalFd: backing.fd,
        isBlock: backing.kind === "block",
        geometry,
        cbt: { fd: cbtFile.fd, lengthBytes: cbtFile.lengthBytes },
        area,
      });
      faultPoint(started);
    },
    queueEnded: () => reactors.request(reactor, { type: "awaitFrontEnd", tracker }),
  };
}
