/**
 * Follows nodes that another program gave another table of the same data: grown (`lvextend`), or reloaded (`lvrename`,
 * `lvchange --refresh`). They are tracked again by a new front, in a new generation that gives the reason.
 *
 * ```
 *   lost ─▶ in a snapshot, or being changed ─▶ checked again
 *     │
 *     ├──▶ leads to other data ─▶ stays as it is, until it is detached
 *     └──▶ leads to the same   ─▶ on record, detached, attached ─▶ done
 *                                      └─ fails ─▶ repeated, until the node is gone, or it is given up
 * ```
 *
 * A daemon that finds such a record repeats the attach, unless too many daemons have ended with it (live-returns.ts).
 */
import { setTimeout as sleep } from "node:timers/promises";
import { faultPoint } from "@blksnap/data-plane";
import { messageOf } from "@blksnap/errors";
import type { DeviceMapper, MappedNode } from "@blksnap/linux-block";
import type { DriverContext } from "../context.js";
import type { NewGeneration } from "../records/return-records.js";
import { FOLLOW_AFTER_END_MS, FOLLOW_INTERVAL_MS, FOLLOW_SPACING_MS } from "../time-limits.js";
import { type Away, isGivenUp, type LiveReturns, returnText } from "./live-returns.js";
import type { Tracker } from "./tracker.js";

/** Most different errors of one device in the log. */
const SAID_MAX = 100;
/** Growth of the pause with each daemon that has ended in an attempt. */
const AFTER_END_GROWTH = 6;

/** Steps for a tracker whose node leads elsewhere. Each throws if it fails. */
export interface FollowSteps {
  /** Runs `operation` with the device locked; a device that is not tracked any more is done. */
  alone(tracker: Tracker, operation: () => Promise<Verdict>): Promise<Verdict>;
  /** The same for a volume that is away; one that is tracked again is done. */
  aloneAway(away: Away, operation: () => Promise<Verdict>): Promise<Verdict>;
  isInSnapshot(tracker: Tracker): boolean;
  /** A path by which its node can be attached; undefined if there is none yet. */
  pathOf(one: Pick<Tracker, "device" | "splice">): Promise<string | undefined>;
  /** Writes back, so that the attach freezes its users only briefly. */
  sync(tracker: Tracker): Promise<void>;
  detach(tracker: Tracker): Promise<void>;
  attach(path: string, reason: NewGeneration): Promise<void>;
}

/** For tests. */
interface FollowPauses {
  readonly intervalMs?: number;
  /** The pause after one daemon has ended in an attempt. */
  readonly afterEndMs?: number;
}

export type Verdict = "done" | "later" | "never";

interface Followed {
  readonly tracker: Tracker | undefined;
  readonly device: string;
  /** Set once it is detached and has to be attached. */
  away: Away | undefined;
  /** Failed checks in a row. */
  failures: number;
  /** Errors that were logged. */
  readonly said: Set<string>;
}

export class LiveFollow {
  readonly #logger: DriverContext["logger"];
  readonly #dm: DeviceMapper;
  readonly #returns: LiveReturns;
  readonly #steps: FollowSteps;
  readonly #intervalMs: number;
  readonly #afterEndMs: number;
  readonly #stopping = new AbortController();
  /** When each node was attached again, by number. */
  readonly #last = new Map<string, number>();
  #isHeld = false;

  constructor(
    { logger }: Pick<DriverContext, "logger">,
    dm: DeviceMapper,
    returns: LiveReturns,
    steps: FollowSteps,
    { intervalMs = FOLLOW_INTERVAL_MS, afterEndMs = FOLLOW_AFTER_END_MS }: FollowPauses = {},
  ) {
    this.#logger = logger;
    this.#dm = dm;
    this.#returns = returns;
    this.#steps = steps;
    this.#intervalMs = intervalMs;
    this.#afterEndMs = afterEndMs;
  }

  stop(): void {
    this.#stopping.abort();
  }

  /**
   * While this daemon may be about to end, nothing is attached again: it would have to leave at once, or would stay.
   */
  hold(isHeld: boolean): void {
    this.#isHeld = isHeld;
  }

  get #isOver(): boolean {
    return this.#isHeld || this.#stopping.signal.aborted;
  }

  /** Resolves when the tracker is tracked again, is gone, or stays as it is. Retries failures. */
  follow(tracker: Tracker): Promise<void> {
    const { device } = tracker;
    return this.#run({ tracker, device, away: undefined, failures: 0, said: new Set() });
  }

  /** @param left volumes that the earlier daemon was to attach again */
  resume(left: readonly Away[]): void {
    for (const away of left) {
      const { device, reason, splice } = away;
      if (!this.#returns.isWanted(away)) continue;
      if (!this.#returns.isUntracked(splice)) {
        // It was attached after all, or is followed as a tracked one.
        this.#returns.end(splice.node.number);
        continue;
      }
      this.#logger.error({ device, reason }, returnText(away));
      void this.followAway(away);
    }
  }

  /**
   * As follow(), for a volume that an earlier daemon has detached: the pause grows with each daemon that ended with it.
   */
  async followAway(away: Away): Promise<void> {
    const { device, unended, splice } = away;
    if (isGivenUp(away) && splice.present() !== undefined) return;
    if (unended > 0) await this.#pause(this.#afterEndMs * AFTER_END_GROWTH ** (unended - 1));
    return this.#run({ tracker: undefined, device, away, failures: 0, said: new Set() });
  }

  async #run(one: Followed): Promise<void> {
    const { signal } = this.#stopping;
    while (!signal.aborted) {
      if ((await this.#turn(one)) !== "later") return;
      await this.#pause(Math.min(this.#intervalMs * 2 ** one.failures, FOLLOW_SPACING_MS));
    }
  }

  async #pause(pauseMs: number): Promise<void> {
    const { signal } = this.#stopping;
    await sleep(pauseMs, undefined, { ref: false, signal }).catch(() => undefined);
  }

  async #turn(one: Followed): Promise<Verdict> {
    try {
      const verdict = await this.#step(one);
      one.failures = 0;
      const { away } = one;
      // Even if another caller has attached it.
      const isOver = verdict !== "later" && away !== undefined && this.#returns.isWanted(away);
      if (isOver) this.#returns.end(away.splice.node.number);
      return verdict;
    } catch (error) {
      if (!this.#stopping.signal.aborted) this.#say(one, error);
      one.failures++;
      return "later";
    }
  }

  async #step(one: Followed): Promise<Verdict> {
    const { tracker, away } = one;
    if (away !== undefined) return this.#steps.aloneAway(away, () => this.#attach(away));
    if (tracker === undefined) return "done";
    return this.#steps.alone(tracker, () => this.#try(one, tracker));
  }

  #say({ device, away, said }: Followed, error: unknown): void {
    const why = messageOf(error);
    if (away !== undefined) this.#returns.noteFailure(away, why);
    const text =
      away === undefined
        ? "it cannot be tracked again yet"
        : "it is detached and NOT tracked until it can be attached again";
    const key = `${text}: ${why}`;
    if (said.has(key) || said.size === SAID_MAX) return;
    said.add(key);
    this.#logger.error({ device, err: error }, `${text} (${why}); retrying`);
  }

  async #try(one: Followed, tracker: Tracker): Promise<Verdict> {
    const { splice } = tracker;
    if (splice?.state !== "lost") return "done";
    // A detach that did not end must not be undone.
    if (!splice.isTaken) return "never";
    const { number, clone } = splice.node;
    const node = splice.present();
    if (node === undefined) return "never";
    if (this.#isOver || this.#steps.isInSnapshot(tracker)) return "later";
    if (this.#wasJustFollowed(number)) return "later";
    if (await this.#isBeingChanged(number, node)) return "later";
    const growth = await this.#dm.growthOf(number, clone);
    if (growth === undefined) return "never";
    if ((await this.#steps.pathOf(tracker)) === undefined) return "later";
    await this.#steps.sync(tracker);
    // Checked again, because the sync takes its time: the attach would fail.
    if ((await this.#isBeingChanged(number, node)) || this.#isOver) return "later";
    const away = this.#returns.begin({
      device: tracker.device,
      splice,
      front: tracker.front.path,
      reason: growth === "grown" ? "capacity_changed" : "interrupted",
    });
    await this.#steps.detach(tracker).catch((error: unknown) => {
      if (tracker.hasEnded) return;
      this.#returns.end(number);
      throw error;
    });
    faultPoint("live.follow-detached");
    one.away = away;
    this.#last.set(number, performance.now());
    return this.#attach(away);
  }

  /** Attaches a volume that is detached already. */
  async #attach(away: Away): Promise<Verdict> {
    const { device, splice, reason } = away;
    if (!this.#returns.isWanted(away)) return "done";
    if (this.#isOver) return "later";
    if (splice.present() === undefined) {
      this.#logger.error({ device }, "it is not tracked any more: its node is gone");
      return "never";
    }
    const path = await this.#steps.pathOf(away);
    if (path === undefined) throw new Error("its node has no path");
    await this.#returns.counted(away, () => this.#steps.attach(path, reason));
    this.#logger.warn({ device, reason }, "its node has another table: a new generation begins");
    return "done";
  }

  /** If a program reloads tables repeatedly, following each time would stop the node's users as often. */
  #wasJustFollowed(number: string): boolean {
    const now = performance.now();
    for (const [one, atMs] of this.#last) {
      if (now - atMs >= FOLLOW_SPACING_MS) this.#last.delete(one);
    }
    return this.#last.has(number);
  }

  /** By LVM, which holds its lock until a change is complete, or by another program. */
  async #isBeingChanged(number: string, node: MappedNode): Promise<boolean> {
    return this.#dm
      .exclusively(node, () => this.#dm.assertUnchanging(number))
      .then(
        () => false,
        () => true,
      );
  }
}
