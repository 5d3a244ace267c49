/**
 * A snapshot: its members, its diff storage, its events. What happens at the instant of take is in
 * take.ts.
 *
 * ```
 *   created ──take──▶ taking ──▶ taken ──destroy──▶ destroyed
 *      ▲                │
 *      └─── rolled back ┘
 * ```
 */
import { randomUUID } from "node:crypto";
import { DiffStorage, type DiffStorageEvent, type StoreSystem } from "@blksnap/diff-storage";
import { CHUNK_SHIFT_DEFAULT } from "@blksnap/engine";
import { EventQueue } from "@blksnap/event-queue";
import { major, minor } from "@blksnap/ublk";
import type { Logger } from "pino";
import { ControlError } from "../control/index.js";
import type { ReactorPool } from "../reactor/pool.js";
import type { MapFile } from "../system/map-file.js";
import type { ServedDevice } from "../system/served-device.js";
import type { Tracker } from "../tracker/tracker.js";
import { isUserEvent, type QueuedEvent } from "./events.js";

const SLOT_BYTES = 2 ** CHUNK_SHIFT_DEFAULT;
const ENOSPC = 28;
/** A device keeps at most this many unused slots before it asks for more, and asks for as many. */
const LOW_WATER_SLOTS_MAX = 32;
/** All devices together keep at most this part of the limit unused. */
const HOARD_DIVISOR = 16;

/** A device of a snapshot. */
export interface Member {
  readonly tracker: Tracker;
  /** The area's map; from take on. */
  map: MapFile | undefined;
  image: ServedDevice | undefined;
  imageLink: string | undefined;
}

export type SnapshotState = "created" | "taking" | "taken" | "destroying";

export interface SnapshotContext {
  readonly reactors: ReactorPool;
  readonly storeSystem: StoreSystem;
  readonly portionBytes: number;
  readonly logger: Logger;
}

export interface SnapshotOptions {
  readonly stores: readonly string[];
  readonly limitBytes: number;
  /** Largest logical block size of the members that are known already. */
  readonly alignmentBytes: number;
}

export class Snapshot {
  readonly id: string = randomUUID();
  readonly createdAt: Date = new Date();
  readonly limitBytes: number;
  readonly storage: DiffStorage;
  readonly events: EventQueue<QueuedEvent>;
  readonly members: Map<number, Member> = new Map();
  state: SnapshotState = "created";
  takenAt: Date | null = null;
  stallUs: number | null = null;
  readonly #context: SnapshotContext;

  private constructor(
    context: SnapshotContext,
    limitBytes: number,
    storage: DiffStorage,
    events: EventQueue<QueuedEvent>,
  ) {
    this.#context = context;
    this.limitBytes = limitBytes;
    this.storage = storage;
    this.events = events;
  }

  /** Opens the stores. @throws DiffStorageError */
  static async create(context: SnapshotContext, options: SnapshotOptions): Promise<Snapshot> {
    const events = new EventQueue<QueuedEvent>();
    let snapshot: Snapshot | undefined;
    const push = (event: DiffStorageEvent): void => {
      context.logger.info({ event, snapshot: snapshot?.id }, `diff storage: ${event.type}`);
      if (!isUserEvent(event) || events.closed) return;
      const usedBytes = snapshot?.storage.stats().allocatedBytes ?? 0;
      const limitBytes = options.limitBytes;
      events.push({ ...event, usedBytes, limitBytes, wallTime: new Date().toISOString() });
    };
    const storage = await DiffStorage.open({
      stores: options.stores.map((path) => ({ path: path === "memory:" ? "memory" : path })),
      limitBytes: options.limitBytes,
      portionBytes: context.portionBytes,
      slotBytes: SLOT_BYTES,
      requiredAlignmentBytes: options.alignmentBytes,
      system: context.storeSystem,
      events: { push },
    });
    snapshot = new Snapshot(context, options.limitBytes, storage, events);
    return snapshot;
  }

  get isTaken(): boolean {
    return this.state === "taken";
  }

  /** @throws ControlError SNAPSHOT_ALREADY_TAKEN, SNAPSHOT_BUSY unless it is in "created" */
  assertCreated(): void {
    if (this.state === "created") return;
    if (this.state === "taken") {
      throw new ControlError("SNAPSHOT_ALREADY_TAKEN", `snapshot ${this.id} is taken already`);
    }
    throw new ControlError("SNAPSHOT_BUSY", `snapshot ${this.id} is being worked on`);
  }

  addMember(tracker: Tracker): void {
    this.members.set(tracker.id, {
      tracker,
      map: undefined,
      image: undefined,
      imageLink: undefined,
    });
  }

  /** How many slots a device may keep unused, so that small storages are not hoarded. */
  get lowWaterSlots(): number {
    const limitSlots = this.limitBytes / SLOT_BYTES;
    const share = Math.floor(limitSlots / (HOARD_DIVISOR * Math.max(1, this.members.size)));
    return Math.max(1, Math.min(LOW_WATER_SLOTS_MAX, share));
  }

  /** A reactor's device needs slots: answers it when there are some, or never will be. */
  async serveSlots(tracker: Tracker, wanted: number): Promise<void> {
    const extent = await this.storage.allocateExtentWhenReady(wanted);
    const full = extent === "full";
    this.#context.reactors.send(tracker.reactor, {
      type: "grant",
      tracker: tracker.id,
      firstSlot: full ? 0 : extent.firstSlot,
      count: full ? 0 : extent.count,
      errno: ENOSPC,
    });
  }

  freeSlots(slots: readonly number[]): void {
    for (const slot of slots) this.storage.free(slot, 1);
  }

  /** A device lost its first block. */
  fault(tracker: Tracker, errno: number): void {
    tracker.errorCode = -errno;
    if (this.events.closed) return;
    const { deviceNumber } = tracker.backing;
    this.events.push({
      type: "corrupted",
      device: tracker.device,
      major: major(deviceNumber),
      minor: minor(deviceNumber),
      errno,
      wallTime: new Date().toISOString(),
    });
  }
}
