/**
 * Nodes that another program gave another table of the same data: grown (`lvextend`), or loaded anew (`lvrename`,
 * `lvchange --refresh`). They are tracked again by a new front, in a new generation that says why.
 *
 * ```
 *   lost ─▶ in a snapshot, or being changed ─▶ looked at again
 *     │
 *     ├──▶ leads to other data ─▶ stays as it is, until it is detached
 *     └──▶ leads to the same   ─▶ detached, attached
 * ```
 */
import { setTimeout as sleep } from "node:timers/promises";
import type { DeviceMapper } from "@blksnap/linux-block";
import type { DriverContext } from "../context.js";
import { FOLLOW_INTERVAL_MS, FOLLOW_SPACING_MS } from "../time-limits.js";
import type { Tracker } from "./tracker.js";

/** Why a new generation begins. */
export type NewGeneration = "capacity_changed" | "interrupted";

/** What is done with a tracker whose node leads elsewhere. Each throws where it fails. */
export interface FollowSteps {
  /** Runs alone among the operations on the device, and not at all where it is not tracked any more. */
  alone(tracker: Tracker, operation: () => Promise<Verdict>): Promise<Verdict>;
  isInSnapshot(tracker: Tracker): boolean;
  /** By which its node can be attached; undefined where there is no such path yet. */
  pathOf(tracker: Tracker): Promise<string | undefined>;
  detach(tracker: Tracker): Promise<void>;
  attach(path: string, reason: NewGeneration): Promise<void>;
}

type Verdict = "done" | "later" | "never";

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

  /** Ends when the tracker is tracked again, is gone, or stays as it is. */
  async follow(tracker: Tracker): Promise<void> {
    const { device } = tracker;
    const { signal } = this.#stopping;
    try {
      while (!signal.aborted) {
        const verdict = await this.#steps.alone(tracker, () => this.#try(tracker));
        if (verdict !== "later") return;
        await sleep(this.#intervalMs, undefined, { ref: false, signal });
      }
    } catch (error) {
      if (signal.aborted) return;
      this.#logger.error({ device, err: error }, "it is not tracked again by itself");
    }
  }

  async #try(tracker: Tracker): Promise<Verdict> {
    const { device, splice } = tracker;
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
    const path = await this.#steps.pathOf(tracker);
    if (path === undefined) return "later";
    await this.#steps.detach(tracker);
    this.#last.set(number, performance.now());
    await this.#steps.attach(path, growth === "grown" ? "capacity_changed" : "interrupted");
    this.#logger.warn({ device, growth }, "its node has another table: a new generation begins");
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
  async #isBeingChanged(number: string, node: { name: string; uuid: string }): Promise<boolean> {
    return this.#dm
      .exclusively(node, () => this.#dm.assertUnchanging(number))
      .then(
        () => false,
        () => true,
      );
  }
}
