/** What users do with snapshots: create, add, take, destroy. One at a time; the caller sees to that. */

import type { SnapshotTakeResponse } from "@blksnap/api";
import { assertNoConflict } from "@blksnap/diff-storage";
import { ControlError } from "../control/control-error.js";
import type { SnapshotCreateOptions } from "../control/driver-control.js";
import { faultPoint } from "../fault-points.js";
import type { Registry } from "../registry.js";
import type { TrackerOperations } from "../tracker/operations.js";
import type { Tracker } from "../tracker/tracker.js";
import { completePolicy } from "./overflow.js";
import type { RecoverContext } from "./recover.js";
import { MEMORY_STORE, Snapshot } from "./snapshot.js";
import { closeMembers, takeSnapshot } from "./take.js";

const NOT_PERSISTENT = { persistent: false };

export class SnapshotOperations {
  readonly #context: RecoverContext;
  readonly #registry: Registry;
  readonly #trackers: TrackerOperations;

  constructor(context: RecoverContext, registry: Registry, trackers: TrackerOperations) {
    this.#context = context;
    this.#registry = registry;
    this.#trackers = trackers;
  }

  /** Devices that are not tracked yet are attached, and detached again when it fails. */
  async create(options: SnapshotCreateOptions): Promise<Snapshot> {
    const onOverflow = completePolicy(options.onOverflow);
    const attached: Tracker[] = [];
    const members = new Set<Tracker>();
    try {
      for (const device of options.devices) {
        const known = this.#registry.findTracker(device);
        if (known !== undefined) this.#registry.assertFree(known);
        const tracker = known ?? (await this.#trackers.attach(device, NOT_PERSISTENT));
        if (known === undefined) attached.push(tracker);
        if (members.has(tracker)) {
          throw new ControlError("DEVICE_ALREADY_IN_SNAPSHOT", `${device} is named twice`);
        }
        members.add(tracker);
      }
      await this.#assertStoresApart(options.stores, [...members]);
      const alignments = [...members].map(({ geometry }) => geometry.logicalBlockBytes);
      const chunkShifts = [...members].map(({ geometry }) => geometry.chunkShift);
      const snapshot = await Snapshot.create(this.#context, {
        stores: options.stores,
        limitBytes: options.limitBytes,
        alignmentBytes: alignments.length === 0 ? 512 : Math.min(...alignments),
        slotBytes: 2 ** Math.max(this.#context.parameters.chunkMinimumShift, ...chunkShifts),
        onOverflow,
      });
      for (const tracker of members) snapshot.addMember(tracker);
      snapshot.save();
      faultPoint("create.members-recorded");
      this.#registry.snapshots.set(snapshot.id, snapshot);
      return snapshot;
    } catch (error) {
      for (const tracker of attached) await this.#trackers.detach(tracker, {});
      throw error;
    }
  }

  async add(id: string, device: string): Promise<Tracker> {
    const snapshot = this.#registry.snapshot(id);
    snapshot.assertCreated();
    const known = this.#registry.findTracker(device);
    if (known !== undefined) this.#registry.assertFree(known, snapshot);
    const tracker = known ?? (await this.#trackers.attach(device, NOT_PERSISTENT));
    try {
      snapshot.assertFits(tracker);
      const paths = snapshot.stores.map(({ path }) => path);
      await this.#assertStoresApart(paths, [tracker]);
    } catch (error) {
      if (known === undefined) await this.#trackers.detach(tracker, {});
      throw error;
    }
    snapshot.addMember(tracker);
    snapshot.save();
    faultPoint("add.recorded");
    return tracker;
  }

  async take(id: string): Promise<SnapshotTakeResponse> {
    const snapshot = this.#registry.snapshot(id);
    snapshot.assertCreated();
    if (snapshot.members.size === 0) {
      throw new ControlError("SNAPSHOT_EMPTY", `snapshot ${id} has no device`);
    }
    await takeSnapshot(this.#context, snapshot);
    const { stallUs } = snapshot;
    this.#context.logger.info({ snapshot: id, stallUs }, "snapshot taken");
    return {
      id,
      stall_us: stallUs ?? 0,
      images: [...snapshot.members.values()].map(({ tracker, image }) => ({
        device: tracker.device,
        image: image?.path ?? "",
      })),
    };
  }

  async destroy(snapshot: Snapshot): Promise<void> {
    snapshot.state = "destroying";
    faultPoint("destroy.begun");
    // Those who wait for events are told at once, however long the rest takes.
    snapshot.events.close();
    await closeMembers(this.#context, [...snapshot.members.values()]);
    faultPoint("destroy.members-closed");
    await snapshot.closeStorage();
    faultPoint("destroy.stores-closed");
    snapshot.forget();
    this.#registry.snapshots.delete(snapshot.id);
    this.#context.logger.info({ snapshot: snapshot.id }, "snapshot destroyed");
  }

  async #assertStoresApart(stores: readonly string[], members: readonly Tracker[]): Promise<void> {
    const numbers = members.flatMap((tracker) => this.#registry.deviceNumbers(tracker));
    for (const path of stores) {
      if (path === MEMORY_STORE) continue;
      await assertNoConflict(path, numbers, this.#registry.topology);
    }
  }
}
