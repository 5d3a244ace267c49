/** Users' operations on tracked devices. The caller ensures that changes of one device run one at a time. */
import { dirname, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { ControlError, type DetachResponse } from "@blksnap/api";
import { faultPoint } from "@blksnap/data-plane";
import { CbtReason } from "@blksnap/engine";
import { blockIdentity, type MappedNode, type Splice } from "@blksnap/linux-block";
import type { Logger } from "pino";
import type { DriverContext } from "../context.js";
import { deviceLock } from "../driver-end.js";
import type { ReactorEvents } from "../reactor-events.js";
import type { NewGeneration } from "../records/return-records.js";
import type { AttachClaim, Registry } from "../registry.js";
import { named } from "../system/errors.js";
import { identityOf } from "../system/path-target.js";
import { type AttachWay, LiveAttach, splicedOf } from "../tracker/live-attach.js";
import { LiveClones } from "../tracker/live-clones.js";
import { withWaysOn } from "../tracker/live-errors.js";
import { type FollowSteps, LiveFollow, type Verdict } from "../tracker/live-follow.js";
import { type Away, LiveReturns } from "../tracker/live-returns.js";
import {
  assertNotOurs,
  assertNotUsedPastUs,
  type OwnPlace,
  ownPlaces,
  swapFiles,
} from "../tracker/own-places.js";
import { SpliceWatch, type UntilChange } from "../tracker/splice-watch.js";
import { Tracker } from "../tracker/tracker.js";
import type { AttachOptions, DetachOptions } from "../tracker/tracker-options.js";
import type { OperationLocks } from "./operation-locks.js";

/** The process may need their pages while a device beneath them is suspended. */
const PROGRAM_PLACES: readonly OwnPlace[] = [
  { what: "the root file system", at: "/" },
  { what: "the daemon's runtime", at: process.execPath },
  { what: "the daemon's program", at: fileURLToPath(import.meta.url) },
  { what: "the programs that exchange tables", at: "/usr" },
];

const CBT_REASONS: Readonly<Record<NewGeneration, number>> = {
  capacity_changed: CbtReason.CAPACITY_CHANGED,
  interrupted: CbtReason.UNCLEAN,
};

export class TrackerOperations {
  readonly #context: DriverContext;
  readonly #registry: Registry;
  readonly #logger: Logger;
  readonly #live: LiveAttach;
  readonly #returns: LiveReturns;
  #watch: SpliceWatch | undefined;
  #follow: LiveFollow | undefined;
  #nextId: number;

  /** @param lastId the largest tracker number that an earlier daemon has used */
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
    this.#returns = new LiveReturns(context, () => registry.trackers.values());
    registry.away = this.#returns;
    this.#nextId = lastId + 1;
  }

  /** @param path of a device that is not tracked */
  async attach(path: string, options: AttachOptions, way?: AttachWay): Promise<Tracker> {
    const device = resolve(path);
    const node = await this.#nodeOf(device, way);
    if (node !== undefined && options.persistent) throw notPersistent(device);
    const tracker = await this.#registry.claimed(device, async (claim) => {
      await this.#assertFree(device, node === undefined ? [] : [...PROGRAM_PLACES, ...swapFiles()]);
      if (options.persistent) await this.#assertStateDisjoint();
      const onFront = (number: number | null) => {
        claim.front = number;
      };
      const all = { ...options, onFront };
      const attached = await (node === undefined
        ? this.#attachFront(device, all, claim)
        : this.#attachLive(device, node, all, claim));
      // Before the claim ends, so that there is no gap between the two.
      this.#registry.addTracker(attached);
      return attached;
    });
    this.#returns.endOf(tracker);
    faultPoint("attach.linked");
    const { state: persistence } = tracker.persistence;
    const live = tracker.splice?.path;
    this.#logger.info({ device, front: tracker.front.path, persistence, live }, "attached");
    return tracker;
  }

  /** The node to attach live; undefined for another kind of attach. @throws ControlError LIVE_UNSUPPORTED */
  async #nodeOf(device: string, way: AttachWay | undefined): Promise<MappedNode | undefined> {
    if (this.#context.frontend.kind === "ublk") return this.#live.wanted(device, way);
    if (way !== "live") return undefined;
    const what = `${device} cannot be attached live: fronts of this daemon are NBD exports`;
    const hint =
      "Run blksnapd with ublk for that; or stop what uses it, and attach it with --front";
    throw new ControlError("LIVE_UNSUPPORTED", what, { hint });
  }

  async #attachFront(
    device: string,
    options: AttachOptions,
    { identity }: AttachClaim,
  ): Promise<Tracker> {
    try {
      return await named(Tracker.attach(this.#context, this.#nextId++, device, options));
    } catch (error) {
      const hasWays = identity.startsWith("block:") && this.#context.frontend.kind === "ublk";
      throw hasWays ? withWaysOn(error, device) : error;
    }
  }

  async #attachLive(
    device: string,
    node: MappedNode,
    options: AttachOptions,
    claim: AttachClaim,
  ): Promise<Tracker> {
    const splice = await this.#live.clones.make(node, this.#registry.liveNodes);
    // What lies behind the front: the node itself will lie above it.
    claim.identity = blockIdentity(splice.node.clone);
    const openAt = LiveClones.path(splice);
    let tracker: Tracker | undefined;
    try {
      tracker = await this.#attachFront(device, { ...options, openAt, splice }, claim);
      await this.#live.splice(splicedOf(tracker, splice));
      return tracker;
    } catch (error) {
      if (tracker === undefined) await this.#live.clones.remove(splice);
      else await this.#takeBack(tracker);
      throw error;
    }
  }

  /** Never fails: the caller has to get the earlier error. */
  async #takeBack(tracker: Tracker): Promise<void> {
    await this.detach(tracker, {}).catch((error: unknown) => {
      this.#logger.error({ device: tracker.device, err: error }, "it stays attached");
      tracker.splice?.lose("its attach failed, and was not rolled back");
      if (!tracker.hasEnded) this.#registry.addTracker(tracker);
    });
  }

  /**
   * After an earlier daemon: finishes or undoes live attaches that it has left. After that, the others are watched;
   * losses so far are known before anybody asks.
   */
  async recoverLive(
    events: Pick<ReactorEvents, "onSpliceLost">,
    locks: OperationLocks,
    untilChange: UntilChange,
  ): Promise<void> {
    if (this.#context.frontend.kind !== "ublk") return;
    const left = this.#returns.load();
    const steps = this.#followSteps(locks);
    const follow = new LiveFollow(this.#context, this.#live.dm, this.#returns, steps);
    this.#follow = follow;
    this.#watch = new SpliceWatch(
      () => this.#registry.trackers.values(),
      {
        onLost: (tracker) => {
          events.onSpliceLost(tracker);
          void follow.follow(tracker);
        },
        onRenamed: (tracker) => this.#followName(tracker),
      },
      { untilChange },
    );
    // Images of these are resumed already. For others it is decided first whether they stay attached.
    this.#watch.look(this.#hasSnapshot);
    const trackers = [...this.#registry.trackers.values()];
    await this.#live.recover(trackers, this.#hasSnapshot, this.#end);
    await this.#live.clones.removeOrphans(this.#registry.liveNodes);
    this.#watch.begin();
    follow.resume(left);
    void this.checkOwnPlaces();
  }

  /** Volumes that are not tracked now, and are to be attached again. */
  get away(): readonly Away[] {
    return this.#returns.untracked;
  }

  /** The same for a tracker whose front is served later than all others. */
  async addLate(tracker: Tracker): Promise<void> {
    this.#registry.addTracker(tracker);
    if (tracker.splice !== undefined) {
      await this.#live.settle([tracker], this.#hasSnapshot, this.#end);
    }
    this.#watch?.look((one) => one === tracker);
  }

  /** Returns whether it is attached again automatically: the earlier daemon was about to do that. */
  readonly #end = async (tracker: Tracker): Promise<boolean> => {
    await this.detach(tracker, {});
    return this.#returns.isFollowed(tracker);
  };

  readonly #hasSnapshot = (tracker: Tracker): boolean =>
    this.#registry.snapshotOf(tracker) !== undefined;

  /** Call it before anything is reported as complete: nodes may lead elsewhere by now. */
  look(): void {
    this.#watch?.look();
  }

  #followSteps(locks: OperationLocks): FollowSteps {
    const { trackers } = this.#registry;
    const alone = (
      device: string,
      lock: string,
      isDue: () => boolean,
      operation: () => Promise<Verdict>,
    ) => {
      const what = `the return of ${device}`;
      return locks.run([lock], { what }, async () => (isDue() ? operation() : "done"));
    };
    return {
      alone: (tracker, operation) => {
        const isDue = () => trackers.get(tracker.id) === tracker;
        return alone(tracker.device, deviceLock(tracker), isDue, operation);
      },
      aloneAway: ({ device, splice }, operation) =>
        alone(device, deviceLock(splice), () => this.#returns.isUntracked(splice), operation),
      isInSnapshot: this.#hasSnapshot,
      pathOf: ({ device, splice }) => this.#pathOf(device, splice),
      sync: (tracker) => this.#live.syncNode(tracker),
      detach: (tracker) => this.detach(tracker, {}, true),
      attach: async (path, reason) => {
        const options = { persistent: false, reason: CBT_REASONS[reason] };
        await this.attach(path, options, "live");
      },
    };
  }

  /** The path as given, or the node's present name if that differs. @throws ControlError LIVE_UNSUPPORTED */
  async #pathOf(device: string, splice: Splice | undefined): Promise<string | undefined> {
    const { lookUp } = this.#context.blockDevices;
    for (const path of [device, splice?.path ?? device]) {
      // Not from the registry, which also knows trackers by names that no longer exist.
      const identity = await identityOf(path, lookUp).catch(() => undefined);
      if (identity === undefined || identity !== splice?.identity) continue;
      await this.#live.wanted(path, "live");
      return path;
    }
    return undefined;
  }

  #followName(tracker: Tracker): void {
    const before = tracker.device;
    tracker.followName();
    const { device, splice } = tracker;
    this.#logger.info({ device, before }, "its node was renamed");
    if (splice !== undefined) void this.#live.clones.follow(splice);
  }

  /** Changes nothing. @throws ControlError FRONT_IN_USE, SPLICE_FAILED: a detach would fail, too */
  async assertMayLeave(tracker: Tracker): Promise<void> {
    const { splice } = tracker;
    if (splice !== undefined) await this.#live.assertMayLeave(splicedOf(tracker, splice));
  }

  /** @param keeps leaves unfinished work to the next daemon; otherwise nothing must be left */
  stopWatch(keeps: boolean): void {
    this.#watch?.stop();
    this.#follow?.stop();
    if (!keeps) this.#returns.close();
  }

  /** Called before a daemon leaves while attaches are running. See LiveReturns.uncountUnderWay(). */
  uncountReturns(): void {
    this.#returns.uncountUnderWay();
  }

  holdReturns(isHeld: boolean): void {
    this.#follow?.hold(isHeld);
  }

  /** For the end of this daemon. See LiveExchange.end(). */
  suspendedNodes(): Promise<readonly string[]> {
    return this.#live.suspendedNodes();
  }

  /** @throws ControlError DEVICE_BUSY */
  async #assertFree(device: string, more: readonly OwnPlace[]): Promise<void> {
    await this.#assertNoExport(device);
    const { topology } = this.#registry;
    await assertNotOurs(device, [...this.#ownPlaces(), ...more], topology);
    await assertNotUsedPastUs(device, topology);
  }

  /** A device that depends on an export of this daemon must not be its original. */
  async #assertNoExport(device: string): Promise<void> {
    if (this.#context.frontend.kind !== "nbd") return;
    const own = await this.#registry.ownDeviceBeneath(device);
    if (own === undefined) return;
    const hint = "Attach the file or device that its server exports; or run blksnapd with ublk";
    throw new ControlError("DEVICE_BUSY", `${device} lies on ${own.path}, ${own.how}`, { hint });
  }

  #ownPlaces(): OwnPlace[] {
    const { state, persistent } = this.#context;
    return ownPlaces([state.path, persistent.path], this.#registry.snapshots.values());
  }

  /** Logs what it is too late to refuse: a file system that was mounted over the daemon's own files. */
  async checkOwnPlaces(): Promise<void> {
    for (const { what, at } of this.#ownPlaces()) {
      const own = await this.#registry.ownDeviceBeneath(at).catch(() => undefined);
      if (own === undefined) continue;
      const { path: device, how } = own;
      this.#logger.error({ device, at }, `${what} are on ${device}, ${how}`);
    }
  }

  /** @throws ControlError PERSISTENT_STATE_ON_DEVICE */
  async #assertStateDisjoint(): Promise<void> {
    const { path } = this.#context.persistent;
    const own = await this.#registry.ownDeviceBeneath(await this.#existingPart(resolve(path)));
    if (own === undefined) return;
    const what = `${path} lies on ${own.path}, ${own.how}`;
    throw new ControlError("PERSISTENT_STATE_ON_DEVICE", what);
  }

  /** @throws ControlError NOT_ATTACHED, DEVICE_IN_SNAPSHOT, FRONT_IN_USE, ... */
  async detachAt(path: string, options: DetachOptions): Promise<DetachResponse> {
    const away = await this.#returns.at(path);
    if (away !== undefined) return this.#giveUp(away);
    const tracker = await this.#registry.tracker(path);
    this.#registry.assertInNoSnapshot(tracker);
    // A volume that was away, and is served again late, may still be on record.
    this.#returns.endOf(tracker);
    await this.detach(tracker, options);
    return { device: tracker.device, front: tracker.front.path };
  }

  #giveUp({ device, front, splice }: Away): DetachResponse {
    this.#returns.end(splice.node.number);
    this.#logger.warn({ device }, "it was to be attached again, and was given up");
    return { device, front };
  }

  /** @param isFollowed it is attached again afterwards, in the same turn */
  async detach(tracker: Tracker, options: DetachOptions, isFollowed = false): Promise<void> {
    const { splice } = tracker;
    if (splice !== undefined) await this.#live.takeOut(splicedOf(tracker, splice), isFollowed);
    const forget = (): void => void this.#registry.trackers.delete(tracker.id);
    try {
      await tracker.detach({ ...options, onClosing: forget });
    } finally {
      if (tracker.hasEnded) forget();
      // It stays tracked, but its node no longer leads to the front.
      else splice?.lose("its detach did not end");
      if (tracker.hasEnded && splice !== undefined) await this.#live.clones.remove(splice);
    }
    this.#logger.info({ device: tracker.device }, "detached");
  }

  /**
   * The existing part of a path whose folders are made when they are first needed.
   * @throws ControlError PERSISTENT_STATE_UNUSABLE
   */
  async #existingPart(path: string): Promise<string> {
    try {
      return (await this.#context.blockDevices.lookUp(path)).realPath;
    } catch (error) {
      const { code = "EIO" } = error as NodeJS.ErrnoException;
      if (code !== "ETIMEDOUT" && path !== "/") return this.#existingPart(dirname(path));
      const what = `a device below ${path} does not answer`;
      throw new ControlError("PERSISTENT_STATE_UNUSABLE", what, { cause: error, errnoName: code });
    }
  }
}

function notPersistent(device: string): ControlError {
  const what = `${device} is in use, and writes made while a live attach is away cannot be detected`;
  const later = "name it in blksnap.toml with persistent = true, from the next boot on";
  const hint = `Attach it without --persistent, and ${later}; or unmount it, and mount its front`;
  return new ControlError("LIVE_UNSUPPORTED", what, { hint });
}
