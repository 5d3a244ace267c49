/** What users do with tracked devices. The caller ensures that changes of one device run one at a time. */

import { dirname, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { type AttachResponse, ControlError } from "@blksnap/api";
import { faultPoint } from "@blksnap/data-plane";
import { blockIdentity, type MappedNode, type Splice } from "@blksnap/linux-block";
import type { PromiseRing } from "@blksnap/uring";
import type { Logger } from "pino";
import type { DriverContext } from "../context.js";
import type { ReactorEvents } from "../reactor-events.js";
import type { WaitingFront } from "../recovery/late-recovery.js";
import type { AttachClaim, Registry } from "../registry.js";
import { named } from "../system/errors.js";
import { type AttachWay, LiveAttach, withWaysOn } from "../tracker/live-attach.js";
import {
  assertNotOurs,
  assertNotUsedPastUs,
  type OwnPlace,
  ownPlaces,
  swapFiles,
} from "../tracker/own-places.js";
import { assertSpliced, nodeChanges, SpliceWatch } from "../tracker/splice-watch.js";
import { Tracker } from "../tracker/tracker.js";
import type { AttachOptions, DetachOptions } from "../tracker/tracker-options.js";

/** Their pages may be wanted in the moment in which a device under them stands still. */
const PROGRAM_PLACES: readonly OwnPlace[] = [
  { what: "the root file system", at: "/" },
  { what: "the daemon's runtime", at: process.execPath },
  { what: "the daemon's program", at: fileURLToPath(import.meta.url) },
  { what: "the programs that exchange tables", at: "/usr" },
];

export class TrackerOperations {
  readonly #context: DriverContext;
  readonly #registry: Registry;
  readonly #logger: Logger;
  readonly #live: LiveAttach;
  #watch: SpliceWatch | undefined;
  #nextId: number;

  /** @param lastId the largest number that an earlier daemon gave a tracker */
  constructor(
    context: DriverContext,
    registry: Registry,
    lastId: number,
    live: LiveAttach = new LiveAttach(context),
  ) {
    this.#context = context;
    this.#registry = registry;
    this.#logger = context.logger;
    this.#live = live;
    this.#nextId = lastId + 1;
  }

  /** @param path of a device that is not tracked */
  async attach(path: string, options: AttachOptions, way?: AttachWay): Promise<Tracker> {
    const device = resolve(path);
    const node = await this.#live.wanted(device, way);
    if (node !== undefined && options.persistent) throw notPersistent(device);
    const tracker = await this.#registry.claimed(device, async (claim) => {
      await this.#assertFree(device, node === undefined ? [] : [...PROGRAM_PLACES, ...swapFiles()]);
      if (options.persistent) await this.#assertStateDisjoint();
      const onFront = (number: number) => {
        claim.front = number;
      };
      const all = { ...options, onFront };
      const attached = await (node === undefined
        ? this.#attachFront(device, all, claim)
        : this.#attachLive(device, node, all, claim));
      // Before the claim ends: from one to the other there is no gap.
      this.#registry.addTracker(attached);
      return attached;
    });
    faultPoint("attach.linked");
    const { state: persistence } = tracker.persistence;
    const live = tracker.splice?.path;
    this.#logger.info({ device, front: tracker.front.path, persistence, live }, "attached");
    return tracker;
  }

  async #attachFront(
    device: string,
    options: AttachOptions,
    { identity }: AttachClaim,
  ): Promise<Tracker> {
    try {
      return await named(Tracker.attach(this.#context, this.#nextId++, device, options));
    } catch (error) {
      throw identity.startsWith("block:") ? withWaysOn(error) : error;
    }
  }

  async #attachLive(
    device: string,
    node: MappedNode,
    options: AttachOptions,
    claim: AttachClaim,
  ): Promise<Tracker> {
    const splice = await this.#live.clone(node);
    // What lies behind the front: the node itself is about to lie above it.
    claim.identity = blockIdentity(splice.node.clone);
    const openAt = this.#live.clonePath(splice);
    let tracker: Tracker | undefined;
    try {
      tracker = await this.#attachFront(device, { ...options, openAt, splice }, claim);
      await this.#live.splice(splicedOf(tracker, splice));
      return tracker;
    } catch (error) {
      if (tracker === undefined) await this.#live.removeClone(splice);
      else await this.#takeBack(tracker);
      throw error;
    }
  }

  /** What failed before is what the caller has to hear. */
  async #takeBack(tracker: Tracker): Promise<void> {
    await this.detach(tracker, {}).catch((error: unknown) => {
      this.#logger.error({ device: tracker.device, err: error }, "it stays attached");
      if (tracker.splice !== undefined) tracker.splice.state = "lost";
      if (!tracker.hasEnded) this.#registry.addTracker(tracker);
    });
  }

  /**
   * After an earlier daemon: what it has left of live attaches is finished, or taken back. From then on the
   * others are watched.
   */
  async recoverLive(
    waiting: readonly WaitingFront[],
    events: Pick<ReactorEvents, "onSpliceLost">,
    ring: PromiseRing,
  ): Promise<void> {
    const trackers = [...this.#registry.trackers.values()];
    const hasSnapshot = (tracker: Tracker) => this.#registry.snapshotOf(tracker) !== undefined;
    await this.#live.recover(trackers, hasSnapshot, (tracker) => this.detach(tracker, {}));
    const known = [...this.#registry.trackers.values()].flatMap(({ splice }) => splice?.node ?? []);
    const unserved = waiting.flatMap(({ record }) => record.live ?? []);
    await this.#live.removeOrphans([...known, ...unserved]);
    this.#watch = new SpliceWatch(
      () => this.#registry.trackers.values(),
      (tracker) => events.onSpliceLost(tracker),
      { untilChange: nodeChanges(ring) },
    );
    void this.checkOwnPlaces();
  }

  stopWatch(): void {
    this.#watch?.stop();
  }

  /** @throws ControlError DEVICE_BUSY */
  async #assertFree(device: string, more: readonly OwnPlace[]): Promise<void> {
    const { topology } = this.#registry;
    await assertNotOurs(device, [...this.#ownPlaces(), ...more], topology);
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
    const { splice } = tracker;
    if (splice !== undefined) await this.#live.takeOut(splicedOf(tracker, splice));
    try {
      await tracker.detach(options);
    } finally {
      if (tracker.hasEnded) this.#registry.trackers.delete(tracker.id);
      // It stays tracked, but its node does not lead to the front any more.
      else if (splice !== undefined) splice.state = "lost";
      if (tracker.hasEnded && splice !== undefined) await this.#live.removeClone(splice);
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

/** @throws ControlError SPLICE_LOST */
export function attachAnswer(tracker: Tracker, already: boolean): AttachResponse {
  assertSpliced(tracker);
  const { device, front, persistence, splice } = tracker;
  return {
    device,
    front: front.path,
    already_attached: already,
    persistent: persistence.state === "on",
    attach_kind: splice === undefined ? "front" : "live",
    live: splice?.path ?? null,
  };
}

function splicedOf(tracker: Tracker, splice: Splice) {
  const { device, front } = tracker;
  return { device, front, splice, noteLink: () => tracker.noteLink() };
}

function notPersistent(device: string): ControlError {
  const what = `${device} is in use, and a live attach does not come back after a stop yet`;
  const hint = "Attach it without --persistent; or unmount it, and mount its front";
  return new ControlError("LIVE_UNSUPPORTED", what, { hint });
}
