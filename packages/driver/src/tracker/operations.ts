/** What users do with tracked devices. What changes them runs one at a time; the caller sees to that. */
import { existsSync } from "node:fs";
import { dirname, resolve } from "node:path";
import type { Logger } from "pino";
import { ControlError } from "../control/control-error.js";
import { faultPoint } from "../fault-points.js";
import type { Registry } from "../registry.js";
import { named } from "../system/errors.js";
import { type AttachOptions, type DetachOptions, Tracker, type TrackerContext } from "./tracker.js";

export class TrackerOperations {
  readonly #context: TrackerContext;
  readonly #registry: Registry;
  readonly #logger: Logger;
  #nextId: number;

  /** @param lastId the largest number that an earlier daemon gave a tracker */
  constructor(context: TrackerContext, registry: Registry, lastId: number) {
    this.#context = context;
    this.#registry = registry;
    this.#logger = context.logger;
    this.#nextId = lastId + 1;
  }

  /** @param path of a device that is not tracked */
  async attach(path: string, options: AttachOptions): Promise<Tracker> {
    const device = resolve(path);
    this.#registry.assertNoImage(device);
    await this.#registry.assertApart(device);
    if (options.persistent) await this.#assertStateApart();
    const id = this.#nextId++;
    const tracker = await named(Tracker.attach(this.#context, id, device, options));
    this.#registry.trackers.set(id, tracker);
    faultPoint("attach.linked");
    const { state: persistence } = tracker.persistence;
    this.#logger.info({ device, front: tracker.front.path, persistence }, "attached");
    return tracker;
  }

  /** @throws ControlError PERSISTENT_STATE_ON_DEVICE */
  async #assertStateApart(): Promise<void> {
    const { path } = this.#context.persistent;
    // It is made when it is needed first.
    let there = resolve(path);
    while (!existsSync(there)) there = dirname(there);
    const own = await this.#registry.ownDeviceBeneath(there);
    if (own === undefined) return;
    const what = `${path} lies on ${own}, which this daemon serves`;
    throw new ControlError("PERSISTENT_STATE_ON_DEVICE", what);
  }

  async detach(tracker: Tracker, options: DetachOptions): Promise<void> {
    await tracker.detach(options);
    this.#registry.trackers.delete(tracker.id);
    this.#logger.info({ device: tracker.device }, "detached");
  }
}
