/**
 * The end of a driver: snapshots are destroyed and devices detached, each for itself. What hangs is waited
 * for as long as anything else gets on, and is then left to the next daemon, which finds it on record.
 */
import { setTimeout as sleep } from "node:timers/promises";
import type { OperationLocks } from "./operation-locks.js";
import type { Registry } from "./registry.js";
import type { Snapshot } from "./snapshot/snapshot.js";
import type { Tracker } from "./tracker/tracker.js";

const LOOK_INTERVAL_MS = 250;

export interface EndOptions {
  readonly registry: Pick<Registry, "trackers" | "snapshots" | "snapshotOf">;
  readonly locks: OperationLocks;
  /** Keeps a persistent snapshot, destroys another. */
  readonly endSnapshot: (snapshot: Snapshot) => Promise<void>;
  readonly detach: (tracker: Tracker) => Promise<void>;
  /** Anything that changes while something gets on: how much was written to the originals. */
  readonly progress: () => Promise<number>;
  /** After so long without progress nobody waits any more. */
  readonly stallMs: number;
}

export function deviceLock({ identity }: Pick<Tracker, "identity">): string {
  return `device ${identity}`;
}

export function snapshotLock(id: string): string {
  return `snapshot ${id.toLowerCase()}`;
}

/** Ends all that there is, with no more operations begun. Answers, in words, what is left. */
export async function endAll(options: EndOptions): Promise<string[]> {
  const { registry, locks } = options;
  locks.close();
  const left = new Map<string, string>();
  let ended = 0;
  const begin = (what: string, names: string[], operation: () => Promise<void>): Promise<void> => {
    left.set(what, `${what} did not end`);
    return locks
      .run(names, { what, atEnd: true }, operation)
      .then(
        () => void left.delete(what),
        (error: Error) => void left.set(what, `${what} failed: ${error.message}`),
      )
      .finally(() => ended++);
  };
  // A device comes after the snapshot that it is in: both have queued for it, in this order.
  const works = [...registry.snapshots.values()].map((snapshot) => {
    const names = [...snapshot.members.values()].map(({ tracker }) => deviceLock(tracker));
    return begin(`the end of snapshot ${snapshot.id}`, [snapshotLock(snapshot.id), ...names], () =>
      endSnapshot(options, snapshot),
    );
  });
  for (const tracker of registry.trackers.values()) {
    works.push(
      begin(
        `the detach of ${tracker.device} from ${tracker.front.path}`,
        [deviceLock(tracker)],
        () => endTracker(options, tracker),
      ),
    );
  }
  // An operation that ran may have been adding to these: what it has made is met here.
  const all = Promise.all([...works, locks.idle()]);
  await endOrStall(all, () => ended, options);
  return [...left.values()];
}

async function endSnapshot(
  { registry, ...options }: EndOptions,
  snapshot: Snapshot,
): Promise<void> {
  if (registry.snapshots.get(snapshot.id) === snapshot) await options.endSnapshot(snapshot);
}

async function endTracker({ registry, ...options }: EndOptions, tracker: Tracker): Promise<void> {
  if (registry.trackers.get(tracker.id) !== tracker) return;
  const snapshot = registry.snapshotOf(tracker);
  if (snapshot !== undefined) throw new Error(`it is in snapshot ${snapshot.id}`);
  await options.detach(tracker);
}

async function endOrStall(
  all: Promise<unknown>,
  ended: () => number,
  { progress, stallMs }: EndOptions,
): Promise<void> {
  let isOver = false;
  const over = all.finally(() => {
    isOver = true;
  });
  let seen = "";
  let sinceMs = performance.now();
  while (!isOver && performance.now() - sinceMs < stallMs) {
    await Promise.race([over, sleep(LOOK_INTERVAL_MS)]);
    const now = `${ended()} ${await progress()}`;
    if (now !== seen) sinceMs = performance.now();
    seen = now;
  }
}
