/** What users do with tracked devices. The caller ensures that changes of one device run one at a time. */

import { dirname, resolve } from "node:path";
import { ControlError } from "@blksnap/api";
import { faultPoint } from "@blksnap/data-plane";
import type { Logger } from "pino";
import type { DriverContext } from "../context.js";
import type { Registry } from "../registry.js";
import { named } from "../system/errors.js";
import {
  assertNotOurs,
  assertNotUsedPastUs,
  type OwnPlace,
  ownPlaces,
} from "../tracker/own-places.js";
import { Tracker } from "../tracker/tracker.js";
import type { AttachOptions, DetachOptions } from "../tracker/tracker-options.js";

export class TrackerOperations {
  readonly #context: DriverContext;
  readonly #registry: Registry;
  readonly #logger: Logger;
  #nextId: number;

  /** @param lastId the largest number that an earlier daemon gave a tracker */
  constructor(context: DriverContext, registry: Registry, lastId: number) {
    this.#context = context;
    this.#registry = registry;
    this.#logger = context.logger;
    this.#nextId = lastId + 1;
  }

  /** @param path of a device that is not tracked */
  async attach(path: string, options: AttachOptions): Promise<Tracker> {
    const device = resolve(path);
    const tracker = await this.#registry.claimed(device, async (claim) => {
      await this.#assertFree(device);
      if (options.persistent) await this.#assertStateDisjoint();
      const id = this.#nextId++;
      const onFront = (number: number) => {
        claim.front = number;
      };
      const attaching = Tracker.attach(this.#context, id, device, { ...options, onFront });
      const attached = await named(attaching);
      // Before the claim ends: from one to the other there is no gap.
      this.#registry.addTracker(attached);
      return attached;
    });
    faultPoint("attach.linked");
    const { state: persistence } = tracker.persistence;
    this.#logger.info({ device, front: tracker.front.path, persistence }, "attached");
    return tracker;
  }

  /** @throws ControlError DEVICE_BUSY */
  async #assertFree(device: string): Promise<void> {
    const { topology } = this.#registry;
    await assertNotOurs(device, this.#ownPlaces(), topology);
    await assertNotUsedPastUs(device, topology);
  }

  #ownPlaces(): OwnPlace[] {
    const { state, persistent } = this.#context;
    return ownPlaces([state.path, persistent.path], this.#registry.snapshots.values());
  }

  /** Logs what it is too late to refuse: a file system mounted over the daemon's own files. */
  async checkOwnPlaces(): Promise<void> {
    for (const { what, at } of this.#ownPlaces()) {
      const own = await this.#registry.ownDeviceBeneath(at).catch(() => undefined);
      if (own === undefined) continue;
      this.#logger.error({ device: own, at }, `${what} are on ${own}, which this daemon serves`);
    }
  }

  /** @throws ControlError PERSISTENT_STATE_ON_DEVICE */
  async #assertStateDisjoint(): Promise<void> {
    const { path } = this.#context.persistent;
    const own = await this.#registry.ownDeviceBeneath(await this.#existingPart(resolve(path)));
    if (own === undefined) return;
    const what = `${path} lies on ${own}, which this daemon serves`;
    throw new ControlError("PERSISTENT_STATE_ON_DEVICE", what);
  }

  async detach(tracker: Tracker, options: DetachOptions): Promise<void> {
    try {
      await tracker.detach(options);
    } finally {
      if (tracker.hasEnded) this.#registry.trackers.delete(tracker.id);
    }
    this.#logger.info({ device: tracker.device }, "detached");
  }

  /** Of a folder that is made when it is needed first. @throws ControlError PERSISTENT_STATE_UNUSABLE */
  async #existingPart(path: string): Promise<string> {
    try {
      return (await this.#context.blockDevices.lookAt(path)).realPath;
    } catch (error) {
      const { code = "EIO" } = error as NodeJS.ErrnoException;
      if (code !== "ETIMEDOUT" && path !== "/") return this.#existingPart(dirname(path));
      const what = `what ${path} lies on does not answer`;
      throw new ControlError("PERSISTENT_STATE_UNUSABLE", what, { cause: error, errnoName: code });
    }
  }
}
