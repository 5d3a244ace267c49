/**
 * Nodes that another program gave another table of the same data: grown (`lvextend`), or loaded anew (`lvrename`,
 * `lvchange --refresh`). They are tracked again by a new front, in a new generation that says why.
 *
 * ```
 *   lost ─▶ in a snapshot, or being changed ─▶ looked at again
 *     │
 *     ├──▶ leads to other data ─▶ stays as it is, until it is detached
 *     └──▶ leads to the same   ─▶ detached, attached ─▶ done
 *                                            └─ fails ─▶ tried again, until the node is gone
 * ```
 */
import { setTimeout as sleep } from "node:timers/promises";
import type { DeviceMapper, MappedNode } from "@blksnap/linux-block";
import type { DriverContext } from "../context.js";
import { FOLLOW_INTERVAL_MS, FOLLOW_SPACING_MS } from "../time-limits.js";
import type { Tracker } from "./tracker.js";

/** Different failures of one device in the log. */
const SAID_MAX = 100;

/** Why a new generation begins. */
export type NewGeneration = "capacity_changed" | "interrupted";

/** What is done with a tracker whose node leads elsewhere. Each throws where it fails. */
export interface FollowSteps {
  /**
   * Runs alone among the operations on the device, and not at all where it is not tracked any more, or
   * `isDetached`, is tracked again.
   */
  alone(tracker: Tracker, operation: () => Promise<Verdict>, isDetached: boolean): Promise<Verdict>;
  isInSnapshot(tracker: Tracker): boolean;
  /** By which its node can be attached; undefined where there is no such path yet. */
  pathOf(tracker: Tracker): Promise<string | undefined>;
  /** So that the attach freezes its users for a moment only. */
  sync(tracker: Tracker): Promise<void>;
  detach(tracker: Tracker): Promise<void>;
  attach(path: string, reason: NewGeneration): Promise<void>;
}

type Verdict = "done" | "later" | "never";

interface Followed {
  readonly tracker: Tracker;
  /** Of the attach that is left to do: it is detached. */
  reason: NewGeneration | undefined;
  /** Since it was looked at without one. */
  failures: number;
  /** Each failure once. */
  readonly said: Set<string>;
}

export class LiveFollow {
  readonly #logger: DriverContext["logger"];
  readonly #dm: DeviceMapper;
  readonly #steps: FollowSteps;
  readonly #intervalMs: number;
  readonly #stopping = new AbortController();
  /** By number of the node: when it was attached again. */
  readonly #last = new Map<string, number>();

  constructor(
    { logger }: Pick<DriverContext, "logger">,
    dm: DeviceMapper,
    steps: FollowSteps,
    intervalMs: number = FOLLOW_INTERVAL_MS,
  ) {
    this.#logger = logger;
    this.#dm = dm;
    this.#steps = steps;
    this.#intervalMs = intervalMs;
  }

  stop(): void {
    this.#stopping.abort();
  }

  /** Ends when the tracker is tracked again, is gone, or stays as it is. Whatever fails is tried again. */
  async follow(tracker: Tracker): Promise<void> {
    const { signal } = this.#stopping;
    const one: Followed = { tracker, reason: undefined, failures: 0, said: new Set() };
    while (!signal.aborted) {
      if ((await this.#turn(one)) !== "later") return;
      const pauseMs = Math.min(this.#intervalMs * 2 ** one.failures, FOLLOW_SPACING_MS);
      await sleep(pauseMs, undefined, { ref: false, signal }).catch(() => undefined);
    }
  }

  async #turn(one: Followed): Promise<Verdict> {
    const { tracker, reason } = one;
    const operation = () => (reason === undefined ? this.#try(one) : this.#attach(one, reason));
    try {
      const verdict = await this.#steps.alone(tracker, operation, reason !== undefined);
      one.failures = 0;
      return verdict;
    } catch (error) {
      if (!this.#stopping.signal.aborted) this.#say(one, error);
      one.failures++;
      return "later";
    }
  }

  #say({ tracker, reason, said }: Followed, error: unknown): void {
    const { device } = tracker;
    const text =
      reason === undefined
        ? "it cannot be tracked again yet"
        : "it is detached and NOT tracked, which status does not show, until it can be attached again";
    const { message } = error as Error;
    const key = `${text}: ${message}`;
    if (said.has(key) || said.size === SAID_MAX) return;
    said.add(key);
    this.#logger.error({ device, err: error }, `${text} (${message}); trying again`);
  }

  async #try(one: Followed): Promise<Verdict> {
    const { tracker } = one;
    const { splice } = tracker;
    if (splice?.state !== "lost") return "done";
    // A detach that did not end is not to be undone.
    if (!splice.isTaken) return "never";
    const { number, clone } = splice.node;
    const node = splice.present();
    if (node === undefined) return "never";
    if (this.#steps.isInSnapshot(tracker) || this.#wasJustFollowed(number)) return "later";
    if (await this.#isBeingChanged(number, node)) return "later";
    const growth = await this.#dm.growthOf(number, clone);
    if (growth === undefined) return "never";
    if ((await this.#steps.pathOf(tracker)) === undefined) return "later";
    await this.#steps.sync(tracker);
    // Once more, as the sync takes its time: the attach would fail.
    if (await this.#isBeingChanged(number, node)) return "later";
    const reason = growth === "grown" ? "capacity_changed" : "interrupted";
    await this.#steps.detach(tracker).catch((error: unknown) => {
      if (!tracker.hasEnded) throw error;
    });
    one.reason = reason;
    this.#last.set(number, performance.now());
    return this.#attach(one, reason);
  }

  /** What is detached already. */
  async #attach({ tracker }: Followed, reason: NewGeneration): Promise<Verdict> {
    const { device, splice } = tracker;
    const node = splice?.present();
    if (node === undefined) {
      this.#logger.error({ device }, "it is not tracked any more: its node is gone");
      return "never";
    }
    const path = await this.#steps.pathOf(tracker);
    if (path === undefined) throw new Error("its node has no path");
    await this.#steps.attach(path, reason);
    this.#logger.warn({ device, reason }, "its node has another table: a new generation begins");
    return "done";
  }

  /** A program that loads tables time and again would stop the node's users as often. */
  #wasJustFollowed(number: string): boolean {
    const now = performance.now();
    for (const [one, atMs] of this.#last) {
      if (now - atMs >= FOLLOW_SPACING_MS) this.#last.delete(one);
    }
    return this.#last.has(number);
  }

  /** By LVM, which has its lock until all of a change is done, or by another program. */
  async #isBeingChanged(number: string, node: MappedNode): Promise<boolean> {
    return this.#dm
      .exclusively(node, () => this.#dm.assertUnchanging(number))
      .then(
        () => false,
        () => true,
      );
  }
}
