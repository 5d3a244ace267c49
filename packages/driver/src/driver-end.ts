/**
 * The end of a driver: snapshots are destroyed and devices detached, each independently. The driver waits for what
 * hangs as long as anything else makes progress, and then leaves it to the next daemon, which finds it recorded.
 */
import { setTimeout as sleep } from "node:timers/promises";
import type { OperationLocks } from "./operations/operation-locks.js";
import type { Registry } from "./registry.js";
import type { Snapshot } from "./snapshot/snapshot.js";
import { END_INTERVAL_MS, END_STALL_PATIENCE_MS, LEAVE_PATIENCE_MS } from "./time-limits.js";
import type { Tracker } from "./tracker/tracker.js";
import type { DetachOptions } from "./tracker/tracker-options.js";

interface Ends {
  readonly registry: Pick<Registry, "trackers" | "snapshots" | "snapshotOf">;
  readonly locks: OperationLocks;
  /** Keeps a persistent snapshot, destroys any other. */
  readonly endSnapshot: (snapshot: Snapshot) => Promise<void>;
  readonly detach: (tracker: Tracker) => Promise<void>;
}

export interface EndOptions extends Ends {
  /** A number that changes while anything makes progress: bytes written to the originals. */
  readonly progress: () => Promise<number>;
  /** Describes nodes that an exchange of tables has left suspended, after a while in which they are resumed. */
  readonly suspendedNodes?: () => Promise<readonly string[]>;
  /** Time without progress after which the driver stops waiting. */
  readonly stallMs?: number;
}

interface Lockable {
  readonly identity: string;
  readonly splice?: Lockable | undefined;
}

/** For a live attach the lock is on its node: operations queue for it even before there is a tracker. */
export function deviceLock({ identity, splice }: Lockable): string {
  return `device ${splice?.identity ?? identity}`;
}

/** Accepts no more operations, and waits a while for running ones. Returns descriptions of those that have not ended. */
export async function closeLocks(
  locks: Pick<OperationLocks, "close" | "idle" | "running">,
): Promise<string[]> {
  locks.close();
  await Promise.race([locks.idle(), sleep(LEAVE_PATIENCE_MS, undefined, { ref: false })]);
  return locks.running.map(({ what }) => what);
}

export function snapshotLock(id: string): string {
  return `snapshot ${id.toLowerCase()}`;
}

function locksOf({ id, members }: Pick<Snapshot, "id" | "members">): string[] {
  return [snapshotLock(id), ...[...members.values()].map(({ tracker }) => deviceLock(tracker))];
}

/** Ends everything; no operation may begin meanwhile. Returns descriptions of what is left. */
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
  const begun = new Set<Snapshot | Tracker>();
  /** A device ends after its snapshot: both queue for the device's lock, in this order. */
  const beginAll = (): Promise<void>[] => {
    const snapshots = [...registry.snapshots.values()].filter((one) => !begun.has(one));
    const trackers = [...registry.trackers.values()].filter((one) => !begun.has(one));
    for (const one of [...snapshots, ...trackers]) begun.add(one);
    return [
      ...snapshots.map((snapshot) => {
        const what = `the end of snapshot ${snapshot.id}`;
        return begin(what, locksOf(snapshot), () => endSnapshot(options, snapshot));
      }),
      ...trackers.map((tracker) => {
        const what = `the detach of ${tracker.device} from ${tracker.front.path}`;
        return begin(what, [deviceLock(tracker)], () => endTracker(options, tracker));
      }),
    ];
  };
  const all = async (): Promise<void> => {
    // What an operation that was still running has made ends in another round.
    for (let works = beginAll(); works.length > 0; works = beginAll()) {
      await Promise.all([...works, locks.idle()]);
    }
    await locks.idle();
    const late = beginAll();
    if (late.length > 0) await Promise.all(late);
  };
  await endOrStall(all(), () => ended, options);
  const suspended = (await options.suspendedNodes?.()) ?? [];
  return [...left.values(), ...suspended];
}

interface LiveTrackers {
  /** Changes nothing. @throws if a detach is expected to fail */
  assertMayLeave(tracker: Tracker): Promise<void>;
  detach(tracker: Tracker, options: DetachOptions): Promise<void>;
  /** See LiveFollow.hold(). */
  holdReturns(isHeld: boolean): void;
}

/**
 * Detaches what is attached live, with its snapshots: all, or none if one of them may not leave. Returns descriptions
 * of what stays. Unless all stay, no volume is attached again automatically from then on.
 * @param eachAlone whether the others leave if one stays
 */
export async function endLive(
  ...[registry, locks, snapshots, trackers, eachAlone = false]: Parameters<typeof leaveLive>
): Promise<string[]> {
  trackers.holdReturns(true);
  const stays = await leaveLive(registry, locks, snapshots, trackers, eachAlone);
  // The daemon continues in that case, unless the system goes down.
  if (stays.length > 0 && !eachAlone) trackers.holdReturns(false);
  return stays;
}

async function leaveLive(
  registry: Ends["registry"],
  locks: OperationLocks,
  snapshots: { destroy(snapshot: Snapshot): Promise<void> },
  trackers: LiveTrackers,
  eachAlone = false,
): Promise<string[]> {
  const options: Ends = {
    registry,
    locks,
    endSnapshot: (snapshot) => snapshots.destroy(snapshot),
    detach: (tracker) => trackers.detach(tracker, {}),
  };
  const live = [...registry.trackers.values()].filter(({ splice }) => splice !== undefined);
  const check = (tracker: Tracker) => {
    const what = `the check of ${tracker.device}`;
    return locks.run([deviceLock(tracker)], { what }, () => trackers.assertMayLeave(tracker));
  };
  const end = async (tracker: Tracker): Promise<void> => {
    const what = `the detach of ${tracker.device}`;
    const snapshot = registry.snapshotOf(tracker);
    if (snapshot !== undefined) {
      await locks.run(locksOf(snapshot), { what }, () => endSnapshot(options, snapshot));
    }
    await locks.run([deviceLock(tracker)], { what }, () => endTracker(options, tracker));
  };
  if (eachAlone) return failuresOf(live, end);
  const refusals = await failuresOf(live, check);
  if (refusals.length > 0) return refusals;
  const ended: string[] = [];
  for (const tracker of live) {
    const [failure] = await failuresOf([tracker], end);
    if (failure === undefined) ended.push(tracker.device);
    else if (ended.length === 0) return [failure];
    else return [`${failure} (detached before that: ${ended.join(", ")})`];
  }
  return [];
}

async function failuresOf<One>(
  all: readonly One[],
  work: (one: One) => Promise<void>,
): Promise<string[]> {
  const done = await Promise.allSettled(all.map(work));
  return done.flatMap((one) => (one.status === "rejected" ? [(one.reason as Error).message] : []));
}

async function endSnapshot({ registry, ...options }: Ends, snapshot: Snapshot): Promise<void> {
  if (registry.snapshots.get(snapshot.id) === snapshot) await options.endSnapshot(snapshot);
}

async function endTracker({ registry, ...options }: Ends, tracker: Tracker): Promise<void> {
  if (registry.trackers.get(tracker.id) !== tracker) return;
  const snapshot = registry.snapshotOf(tracker);
  if (snapshot !== undefined) throw new Error(`it is in snapshot ${snapshot.id}`);
  await options.detach(tracker);
}

async function endOrStall(
  all: Promise<unknown>,
  ended: () => number,
  { progress, stallMs = END_STALL_PATIENCE_MS }: EndOptions,
): Promise<void> {
  let isOver = false;
  const over = all.finally(() => {
    isOver = true;
  });
  let seen = "";
  let sinceMs = performance.now();
  while (!isOver && performance.now() - sinceMs < stallMs) {
    await Promise.race([over, sleep(END_INTERVAL_MS)]);
    const now = `${ended()} ${await progress()}`;
    if (now !== seen) sinceMs = performance.now();
    seen = now;
  }
}
