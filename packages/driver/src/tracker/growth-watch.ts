/**
 * Notices originals that have grown (`lvextend`, a cloud disk, `losetup -c`), and makes their fronts follow.
 *
 * ```
 *   larger ─▶ as large at the next check ─▶ in a snapshot, or just out of it ─▶ checked again
 *                     └──▶ alone among the operations on the device: grows ─▶ done
 *                                                └─ fails ─▶ tried again, later each time
 * ```
 *
 * An original that keeps growing is left alone until it stops: each growth begins a new generation.
 */
import type { DeviceReader } from "@blksnap/data-plane";
import { messageOf } from "@blksnap/errors";
import type { Logger } from "pino";
import { deviceLock } from "../driver-end.js";
import type { OperationLocks } from "../operations/operation-locks.js";
import type { Registry } from "../registry.js";
import {
  GROWTH_POLL_INTERVAL_MS,
  GROWTH_SPACING_MS,
  OPERATION_TURN_TIMEOUT_MS,
} from "../time-limits.js";
import type { Tracker } from "./tracker.js";

type Watched = Pick<
  Tracker,
  "id" | "device" | "splice" | "geometry" | "presentCapacityBytes" | "grow"
> & {
  readonly front: Pick<Tracker["front"], "isLive" | "capacityBytes" | "fixedWhy" | "path">;
};

const STILL_GROWING = "its original is still becoming larger";
const KEPT_DISCARDS = "discards that a snapshot has kept back are on their way to the original";

export interface GrowthSteps<One> {
  /** It grows when that is destroyed. */
  isInSnapshot(tracker: One): boolean;
  /** Discards that a snapshot has held back are still in flight. */
  keepsDiscards(tracker: One): Promise<boolean>;
  /** Runs alone among the operations on the device; where it is not tracked any more nothing is done. */
  alone(tracker: One, operation: () => Promise<void>): Promise<void>;
}

interface Seen {
  readonly originalBytes: number;
  readonly failures: number;
  /** When it is tried next. */
  readonly dueMs: number;
  /** Of the last attempt, or why there was none. */
  readonly why: string | undefined;
}

export class GrowthWatch<One extends Watched = Tracker> {
  readonly #trackers: () => Iterable<One>;
  readonly #steps: GrowthSteps<One>;
  readonly #logger: Pick<Logger, "info" | "error">;
  /** Of those that are larger than their fronts, by number. */
  readonly #seen = new Map<number, Seen>();
  readonly #growing = new Set<number>();
  readonly #timer: NodeJS.Timeout;
  #isLooking = false;

  constructor(
    trackers: () => Iterable<One>,
    steps: GrowthSteps<One>,
    logger: Pick<Logger, "info" | "error">,
    intervalMs: number = GROWTH_POLL_INTERVAL_MS,
  ) {
    this.#trackers = trackers;
    this.#steps = steps;
    this.#logger = logger;
    this.#timer = setInterval(() => void this.look(), intervalMs);
    this.#timer.unref();
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  /** Why it has not grown; undefined if it need not, or is about to. A snapshot's devices are left alone. */
  whyOf({ id }: Pick<One, "id">): string | undefined {
    return this.#seen.get(id)?.why;
  }

  /** Ends when all that are due have grown, or not. */
  async look(): Promise<void> {
    // One that does not answer delays these checks, and nothing else.
    if (this.#isLooking) return;
    this.#isLooking = true;
    const begun: Promise<void>[] = [];
    try {
      const trackers = [...this.#trackers()];
      const ids = new Set(trackers.map(({ id }) => id));
      for (const id of this.#seen.keys()) if (!ids.has(id)) this.#seen.delete(id);
      for (const tracker of trackers) {
        if (await this.#isDue(tracker)) begun.push(this.#grow(tracker));
      }
    } finally {
      this.#isLooking = false;
    }
    await Promise.all(begun);
  }

  async #isDue(tracker: One): Promise<boolean> {
    const { id, front, geometry, splice } = tracker;
    if (splice !== undefined || !front.isLive || front.fixedWhy !== undefined) return false;
    const originalBytes = await tracker.presentCapacityBytes();
    const isLarger = originalBytes > geometry.capacityBytes;
    if (!isLarger && front.capacityBytes >= geometry.capacityBytes) {
      this.#seen.delete(id);
      return false;
    }
    const seen = this.#seen.get(id);
    if (seen?.originalBytes !== originalBytes) {
      const why = seen === undefined ? undefined : STILL_GROWING;
      this.#seen.set(id, { originalBytes, failures: 0, dueMs: 0, why });
      return false;
    }
    if (this.#growing.has(id) || performance.now() < seen.dueMs) return false;
    return !this.#steps.isInSnapshot(tracker);
  }

  async #grow(tracker: One): Promise<void> {
    const { id, device, front } = tracker;
    const { capacityBytes: beforeBytes } = front;
    this.#growing.add(id);
    try {
      await this.#steps.alone(tracker, async () => {
        if (this.#steps.isInSnapshot(tracker)) return;
        if (await this.#steps.keepsDiscards(tracker)) {
          const seen = this.#seen.get(id);
          if (seen !== undefined) this.#seen.set(id, { ...seen, why: KEPT_DISCARDS });
          return;
        }
        await tracker.grow();
        this.#seen.delete(id);
        const { capacityBytes } = tracker.front;
        if (capacityBytes === beforeBytes) return;
        const text = "the front has grown with its original";
        this.#logger.info({ device, front: front.path, beforeBytes, capacityBytes }, text);
      });
    } catch (error) {
      this.#note(tracker, error);
    } finally {
      this.#growing.delete(id);
    }
  }

  #note({ id, device, front }: One, error: unknown): void {
    const seen = this.#seen.get(id);
    if (seen === undefined) return;
    const why = messageOf(error);
    const failures = seen.failures + 1;
    const pauseMs = Math.min(GROWTH_POLL_INTERVAL_MS * 2 ** failures, GROWTH_SPACING_MS);
    this.#seen.set(id, { ...seen, failures, why, dueMs: performance.now() + pauseMs });
    if (why === seen.why) return;
    const text = `the front has not grown with its original (${why}); retrying`;
    this.#logger.error({ device, front: front.path, err: error }, text);
  }
}

/** Of all trackers of a registry, from now on. */
export function watchGrowth(
  registry: Pick<Registry, "trackers" | "snapshotOf">,
  devices: Pick<DeviceReader, "counters">,
  locks: Pick<OperationLocks, "run">,
  logger: Logger,
): GrowthWatch {
  const { trackers } = registry;
  const steps: GrowthSteps<Tracker> = {
    isInSnapshot: (tracker) => registry.snapshotOf(tracker) !== undefined,
    keepsDiscards: async (tracker) => (await devices.counters(tracker)).keptDiscardBytes > 0,
    alone: (tracker, operation) => {
      const what = `the growth of ${tracker.front.path}`;
      const options = { what, waitMs: OPERATION_TURN_TIMEOUT_MS };
      return locks.run([deviceLock(tracker)], options, async () => {
        if (trackers.get(tracker.id) === tracker) await operation();
      });
    },
  };
  return new GrowthWatch(() => trackers.values(), steps, logger);
}

/**
 * Why a front and its original differ in size, and what to do; null where they do not, or not for long.
 * @param whyNot as of whyOf()
 */
export function sizeWhy(
  {
    front,
    geometry,
  }: Pick<Watched, "geometry"> & {
    readonly front: Pick<Watched["front"], "fixedWhy" | "capacityBytes">;
  },
  originalBytes: number,
  snapshot: { readonly id: string } | undefined,
  whyNot: string | undefined,
): string | null {
  const again = "unmount the front, detach the device and attach it again";
  // All of it may be tracked before users have it.
  if (originalBytes === front.capacityBytes) return null;
  if (originalBytes === 0) return "the original is gone";
  if (originalBytes < geometry.capacityBytes) {
    return `a front cannot become smaller, and requests beyond the original's end fail: give the original its size back; or ${again}`;
  }
  if (front.fixedWhy !== undefined) return `${front.fixedWhy}: ${again}`;
  if (snapshot !== undefined) return `the front grows when snapshot ${snapshot.id} is destroyed`;
  return whyNot === undefined ? null : `the front has not grown yet: ${whyNot}`;
}
