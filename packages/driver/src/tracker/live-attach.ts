/**
 * Live attach: puts the front under a device-mapper node that is in use.
 *
 * ```
 *   clone ─▶ front on the clone, on record ─▶ inactive table ─▶ exchange       attach
 *   inactive table ─▶ exchange ─▶ front gone, with its record ─▶ clone gone    detach
 * ```
 *
 * Only the exchange changes the node, and it is one system call of another process (DeviceMapper). So a daemon that is
 * killed before the exchange leaves the node as it was, and the next one removes the rest; if it is killed after, the
 * front waits for the next daemon as any front does. The next daemon waits for an exchange in progress before it judges
 * (live-exchange.ts). The kernel keeps a front open while a table leads to it, so the front cannot end under its users.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { ControlError } from "@blksnap/api";
import { faultPoint } from "@blksnap/data-plane";
import { EBUSY, ETIMEDOUT, messageOf } from "@blksnap/errors";
import { DeviceMapper, type MappedNode, type Splice, usersOf } from "@blksnap/linux-block";
import { apartProgram, claimInHelper, LockedHelper, syncInHelper, tryFlock } from "@blksnap/uring";
import type { DriverContext } from "../context.js";
import { identityOf } from "../system/path-target.js";
import {
  CLAIM_TIMEOUT_MS,
  FRONT_POLL_INTERVAL_MS,
  LAST_SYNC_PATIENCE_MS,
  SPLICE_SYNC_TIMEOUT_MS,
} from "../time-limits.js";
import { LiveClones } from "./live-clones.js";
import { splicingFailed as failed, unsupported } from "./live-errors.js";
import { LiveExchange } from "./live-exchange.js";
import type { Tracker } from "./tracker.js";

/** How to attach a device; absent: as its present use requires. */
export type AttachWay = "live" | "front";

type Context = Pick<DriverContext, "state" | "logger" | "blockDevices">;
type Spliced = Pick<Tracker, "device" | "front" | "noteLink" | "noteMade"> & {
  readonly splice: Splice;
};

/** For five seconds: a program that only scans all disks has the front open for less, even on a busy machine. */
const FRONT_POLLS = 25;

/** For tests. */
interface LiveParts {
  readonly exchanges?: LiveExchange;
  readonly sync?: typeof syncInHelper;
}

export class LiveAttach {
  readonly #context: Context;
  readonly #exchanges: LiveExchange;
  readonly #syncPaths: typeof syncInHelper;
  readonly dm: DeviceMapper;
  readonly clones: LiveClones;

  constructor(
    context: Context,
    dm: DeviceMapper = machineMapper(),
    { exchanges, sync = syncInHelper }: LiveParts = {},
  ) {
    this.#context = context;
    this.#exchanges = exchanges ?? new LiveExchange(context, dm);
    this.#syncPaths = sync;
    this.dm = dm;
    this.clones = new LiveClones(context, dm);
  }

  /**
   * The node to attach live; undefined if the device gets a front of the usual kind.
   * @throws ControlError LIVE_UNSUPPORTED, DEVICE_IS_OURS, DEVICE_NOT_FOUND, DEVICE_READ_ONLY
   */
  async wanted(device: string, way: AttachWay | undefined): Promise<MappedNode | undefined> {
    if (way === "front") return undefined;
    const identity = await identityOf(device, this.#context.blockDevices.lookUp);
    const [kind, ...number] = identity.split(":");
    const node = kind === "block" ? this.dm.node(number.join(":")) : undefined;
    if (node === undefined) {
      if (way === undefined) return undefined;
      throw unsupported(`${device} is not a device-mapper node`);
    }
    if (LiveClones.isOne(node)) {
      throw new ControlError("DEVICE_IS_OURS", `${device} was created by a live attach`);
    }
    const isBusy = async () => (await claimInHelper(device, CLAIM_TIMEOUT_MS)) === -EBUSY;
    if (way === undefined && !(await isBusy())) return undefined;
    if (node.slaves.some((name) => name.startsWith("ublkb"))) {
      throw unsupported(`${device} already leads to a ublk device: ${node.slaves.join(", ")}`);
    }
    const finder = this.dm.finderOf(node);
    if (finder !== undefined) {
      throw unsupported(`${device} is a part of ${finder}, which would find its content twice`);
    }
    if (!node.isReadOnly) return node;
    throw new ControlError("DEVICE_READ_ONLY", `${device} is read-only`);
  }

  /** See LiveExchange.end(). */
  suspendedNodes(): Promise<readonly string[]> {
    return this.#exchanges.end();
  }

  /** Puts the front under its node. @throws ControlError SPLICE_FAILED: the node is unchanged */
  async splice(tracker: Spliced): Promise<void> {
    await this.#sync(tracker, []);
    await this.#exclusively(tracker, () => this.#putUnder(tracker));
    tracker.splice.state = "on";
    tracker.noteMade(true);
    faultPoint("live.spliced");
  }

  async #putUnder(tracker: Spliced): Promise<void> {
    const { device, front, splice } = tracker;
    const { number, clone } = splice.node;
    try {
      await this.dm.prepareSplice(number, front.deviceNumber);
      tracker.noteLink();
      faultPoint("live.prepared");
      await this.#exchange(tracker, "splice", () => this.dm.haveSameTable(number, clone));
      if (!(await this.#leadsTo(tracker))) throw new Error("another program replaced its table");
    } catch (error) {
      // The kernel may have done it although the program that should report it was killed.
      const isDone = await this.#leadsTo(tracker).catch(() => true);
      if (!isDone) {
        await this.#exchanges.dropWaiting(tracker);
        throw failed(`the front was not put under ${device}: ${messageOf(error)}`, error);
      }
      this.#context.logger.warn({ device, err: error }, "the front may be under its node");
    }
  }

  /**
   * Leads the node back to its former target, unless another program has given it another table.
   * @param isFollowed it is attached again afterwards: a daemon that finds this half done has to follow the node, too
   * @throws ControlError SPLICE_FAILED, FRONT_IN_USE: it still leads to the front
   */
  async takeOut(tracker: Spliced, isFollowed = false): Promise<void> {
    const { isMade } = tracker.splice.node;
    if (!isFollowed) tracker.noteMade(false);
    try {
      await this.#takeOut(tracker);
    } catch (error) {
      if (isMade === true) tracker.noteMade(true);
      throw error;
    }
  }

  async #takeOut(tracker: Spliced): Promise<void> {
    const { number, clone } = tracker.splice.node;
    const isUnder = await this.#leadsTo(tracker).catch(throwFailed);
    const isWaiting = () => this.dm.hasOursWaiting(number, tracker.splice.front, clone);
    if (!isUnder && !(await isWaiting().catch(throwFailed))) return;
    if (isUnder) {
      await assertOnlyItsNode(tracker);
      // Data left in the front's page cache would overwrite what the node's users write afterwards.
      await this.#sync(tracker, [tracker.front.path]);
    }
    await this.#exclusively(tracker, () => this.#leadBack(tracker));
    faultPoint("live.returned");
  }

  /**
   * Does the slow part of takeOut() that changes nothing.
   * @throws ControlError as takeOut()
   */
  async assertMayLeave(tracker: Spliced): Promise<void> {
    const { number, clone } = tracker.splice.node;
    if (!(await this.#leadsTo(tracker).catch(throwFailed))) return;
    await assertOnlyItsNode(tracker);
    await this.#sync(tracker, [tracker.front.path]);
    await this.#exclusively(tracker, () =>
      this.dm.assertReturnable(number, tracker.splice.front, clone),
    );
  }

  async #leadBack(tracker: Spliced): Promise<void> {
    const { device, splice } = tracker;
    const { number, clone } = splice.node;
    // The kernel keeps a front open while an inactive table leads to it.
    await this.#exchanges.dropWaiting(tracker);
    if (!(await this.#leadsTo(tracker).catch(throwFailed))) return;
    const before = splice.state;
    splice.state = "ending";
    try {
      await this.dm.prepareReturn(number, clone);
      faultPoint("live.return-prepared");
      await this.#exchange(tracker, "return", () => this.#leadsTo(tracker));
      if (await this.#leadsTo(tracker)) throw new Error("another program dropped its new table");
    } catch (error) {
      await this.#exchanges.dropWaiting(tracker);
      if (await this.#leadsTo(tracker).catch(() => true)) {
        splice.state = before;
        throw failed(`the front is still under ${device}: ${messageOf(error)}`, error);
      }
      const text = "its node no longer leads to the front";
      this.#context.logger.warn({ device, err: error }, text);
    }
  }

  /** @throws ControlError SPLICE_FAILED: LVM does not release its lock */
  async #exclusively(tracker: Spliced, work: () => Promise<void>): Promise<void> {
    const { device, splice } = tracker;
    const node = this.dm.nodeOf(splice) ?? splice.node;
    await this.dm.exclusively(node, work).catch((error: unknown) => {
      if (error instanceof ControlError) throw error;
      throw failed(`the node of ${device} is left unchanged: ${messageOf(error)}`, error);
    });
  }

  #leadsTo({ splice }: Spliced): Promise<boolean> {
    return this.dm.isLinearOn(splice.node.number, splice.front);
  }

  /** Called before anything is changed, so that a following attach has little left to write. @throws as splice() */
  async syncNode({ device, splice }: Pick<Tracker, "device" | "splice">): Promise<void> {
    if (splice !== undefined) await this.#sync({ device, splice }, []);
  }

  /**
   * Writes back, so that the freeze, during which users wait, writes only the rest.
   * @throws ControlError SPLICE_FAILED: it would take too long
   */
  async #sync(
    { device, splice }: Pick<Spliced, "device" | "splice">,
    more: readonly string[],
  ): Promise<void> {
    const synced = this.#syncPaths([pathOf(splice), ...more], SPLICE_SYNC_TIMEOUT_MS);
    const statuses = await synced.catch(throwUnsynced);
    if (!statuses.includes(-ETIMEDOUT)) return;
    const what = `${device} was not synced in ${SPLICE_SYNC_TIMEOUT_MS} ms`;
    throw failed(`${what}: its users would wait too long`, undefined);
  }

  /**
   * @param isUnchanged whether the node still has the table that the waiting one is made for; another program may have
   * given it another one
   */
  async #exchange(
    tracker: Spliced,
    what: "splice" | "return",
    isUnchanged: () => Promise<boolean>,
  ): Promise<void> {
    await this.#syncAgain(tracker, what);
    if (!(await isUnchanged())) throw new Error("its node now has another table");
    await this.#exchanges.run(tracker, what);
  }

  /**
   * Writes back what was written since the first sync, while LVM's lock was waited for. An attach can be repeated; if a
   * node is led back, the freeze writes the rest.
   */
  async #syncAgain({ device, splice }: Spliced, what: "splice" | "return"): Promise<void> {
    try {
      const [status] = await this.#syncPaths([pathOf(splice)], LAST_SYNC_PATIENCE_MS);
      if (status !== -ETIMEDOUT) return;
      throw new Error(`its users write more than can be synced in ${LAST_SYNC_PATIENCE_MS} ms`);
    } catch (error) {
      if (what === "splice") throw error;
      this.#context.logger.warn({ device, err: error }, "its node is frozen, but not synced");
    }
  }

  /**
   * After an earlier daemon: waits for exchanges in progress, and ends what it has left half done.
   * @param end undoes an attach that did not reach its splice, or finishes a detach that is past it; returns whether
   * the device is attached again automatically
   */
  async recover(
    trackers: readonly Tracker[],
    hasSnapshot: (tracker: Tracker) => boolean,
    end: (tracker: Tracker) => Promise<boolean>,
  ): Promise<void> {
    await this.#exchanges.fence(trackers.flatMap(({ splice }) => splice ?? []));
    await this.settle(trackers, hasSnapshot, end);
  }

  /** The same, when no exchange is in progress. */
  async settle(
    trackers: readonly Tracker[],
    hasSnapshot: (tracker: Tracker) => boolean,
    end: (tracker: Tracker) => Promise<boolean>,
  ): Promise<void> {
    for (const tracker of trackers) {
      const { splice, device } = tracker;
      if (splice === undefined) continue;
      const its = splicedOf(tracker, splice);
      try {
        const { number, clone } = splice.node;
        if (await this.dm.hasOursWaiting(number, splice.front, clone)) {
          await this.#exclusively(its, () => this.#exchanges.dropWaiting(its));
        }
        const leadsTo = await this.#leadsTo(its);
        if (leadsTo) tracker.noteMade(true);
        // A tracker in a snapshot has had its splice: its loss is reported like any other.
        if (leadsTo || hasSnapshot(tracker)) continue;
        // So has one whose node has grown, or was led back to the same data by another program: it is followed, unless
        // its detach had begun.
        const { isMade } = splice.node;
        const isThere = this.dm.nodeOf(splice) !== undefined;
        const growth = isThere ? await this.dm.growthOf(number, clone) : undefined;
        if (growth === "grown" && isMade !== false) continue;
        if (growth === "same" && isMade === true) continue;
        const isFollowed = await end(tracker);
        const then = isFollowed ? "it is attached again automatically" : "attach it again";
        const text = `detached, because its node does not lead to its front: ${then}`;
        this.#context.logger.error({ device, node: splice.path }, text);
      } catch (error) {
        this.#context.logger.error({ device, err: error }, "its live attach is not settled");
      }
    }
  }
}

function machineMapper(): DeviceMapper {
  const helper = new LockedHelper();
  const ask = helper.ask.bind(helper);
  return new DeviceMapper({ program: apartProgram, ask, tryFlock });
}

/** By number, because its name may change. */
function pathOf({ node }: Splice): string {
  return `/dev/dm-${node.number.split(":")[1]}`;
}

/** The live-attached part of a tracker. */
export function splicedOf(tracker: Tracker, splice: Splice): Spliced {
  const { device, front } = tracker;
  return {
    device,
    front,
    splice,
    noteLink: () => tracker.noteLink(),
    noteMade: (isMade) => tracker.noteMade(isMade),
  };
}

/** @throws ControlError FRONT_IN_USE: another program uses it, bypassing its node */
async function assertOnlyItsNode({ front, splice }: Spliced): Promise<void> {
  const holder = `used by dm-${splice.node.number.split(":")[1]}`;
  for (let polls = FRONT_POLLS; ; polls--) {
    const users = usersOf([front.path], { exceptPid: process.pid }).get(front.path) ?? [];
    const others = users.filter((user) => user !== holder);
    if (others.length === 0) return;
    if (polls === 1) {
      const what = `the front ${front.path} is in use: ${others.join(", ")}`;
      throw new ControlError("FRONT_IN_USE", what);
    }
    await sleep(FRONT_POLL_INTERVAL_MS);
  }
}

function throwFailed(error: unknown): never {
  throw failed(`the node could not be examined: ${messageOf(error)}`, error);
}

function throwUnsynced(error: unknown): never {
  throw failed(`the node could not be synced: ${messageOf(error)}`, error);
}
