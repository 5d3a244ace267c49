/**
 * Notices that a node no longer leads to its front: another program has loaded another table (`lvextend`, `dmsetup
 * reload`), or removed it. Writes from then on bypass the front.
 */
import { closeSync, openSync } from "node:fs";
import { ControlError } from "@blksnap/api";
import { type PromiseRing, preparePoll, type Ring } from "@blksnap/uring";
import { SPLICE_POLL_INTERVAL_MS } from "../time-limits.js";
import type { Tracker } from "./tracker.js";

type Watched = Pick<Tracker, "device" | "splice"> & {
  readonly front: { readonly id: number | null };
};

/** @throws ControlError SPLICE_LOST */
export function assertSpliced({ device, splice, front }: Watched): void {
  splice?.noteLoss(front.id ?? -1);
  if (splice?.state !== "lost") return;
  const what = `${splice.path} no longer leads to the front of ${device}: writes were missed`;
  throw new ControlError("SPLICE_LOST", `${what} (${splice.why})`);
}

/** Resolves at the next change of any device-mapper node. Rejects if that cannot be observed. */
export type UntilChange = (signal: AbortSignal) => Promise<unknown>;

interface SpliceListener<One> {
  /** Called once for each loss. */
  onLost(tracker: One): void;
  /** Called after the splice knows the node by its new name. */
  onRenamed(tracker: One): void;
}

interface WatchOptions {
  readonly intervalMs?: number;
  readonly untilChange?: UntilChange;
}

export class SpliceWatch<One extends Watched = Tracker> {
  readonly #trackers: () => Iterable<One>;
  readonly #on: SpliceListener<One>;
  readonly #intervalMs: number;
  readonly #reported = new WeakSet<object>();
  #timer: NodeJS.Timeout | undefined;
  readonly #untilChange: UntilChange | undefined;
  readonly #stopping = new AbortController();
  #isFollowing = false;

  constructor(
    trackers: () => Iterable<One>,
    on: SpliceListener<One>,
    { intervalMs = SPLICE_POLL_INTERVAL_MS, untilChange }: WatchOptions = {},
  ) {
    this.#trackers = trackers;
    this.#on = on;
    this.#untilChange = untilChange;
    this.#intervalMs = intervalMs;
  }

  /** Looks now, and from now on. */
  begin(): void {
    this.#timer = setInterval(() => this.look(), this.#intervalMs);
    this.#timer.unref();
    this.look();
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#stopping.abort();
  }

  look(isWanted: (tracker: One) => boolean = () => true): void {
    const live = [...this.#trackers()].filter(({ splice }) => splice !== undefined);
    const trackers = live.filter(isWanted);
    // Before the check, so that no change is missed in between.
    if (this.#timer !== undefined && trackers.length > 0 && !this.#isFollowing) void this.#follow();
    for (const tracker of trackers) {
      const { splice, front } = tracker;
      if (splice === undefined) continue;
      if (splice.noteName()) this.#on.onRenamed(tracker);
      splice.noteLoss(front.id ?? -1);
      // An operation may have seen it first.
      if (splice.state !== "lost" || this.#reported.has(splice)) continue;
      this.#reported.add(splice);
      this.#on.onLost(tracker);
    }
  }

  /** Checks again when any node has changed. If that cannot be observed, the timer remains. */
  async #follow(): Promise<void> {
    const { signal } = this.#stopping;
    const untilChange = this.#untilChange;
    if (untilChange === undefined || signal.aborted) return;
    this.#isFollowing = true;
    try {
      const changed: Promise<unknown> = untilChange(signal);
      await changed;
    } catch {
      return;
    } finally {
      this.#isFollowing = false;
    }
    if (!signal.aborted) this.look();
  }
}

const CONTROL = "/dev/mapper/control";
const POLLIN = 1;

/** The kernel's count of changes to nodes: a file opened now becomes readable at the next change. */
export function nodeChanges(
  ring: Pick<PromiseRing, "submit">,
  control: string = CONTROL,
): UntilChange {
  return async (signal) => {
    const fd = openSync(control, "r");
    try {
      const poll = (on: Ring, low: number, high: number) => preparePoll(on, fd, POLLIN, low, high);
      const result = await ring.submit(poll, null, signal);
      if (result < 0) throw new Error(`nodes could not be polled (errno ${-result})`);
    } finally {
      closeSync(fd);
    }
  };
}
