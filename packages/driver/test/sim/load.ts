/**
 * Loads the driver after the simulated parts have replaced the real ones: modules keep what they find when they are
 * loaded.
 */
import type { FaultPoint, GrowthFaultPoint } from "@blksnap/data-plane";
import { SimMachine } from "@blksnap/sim-kernel";

const HOOK = Symbol.for("blksnap.fault-point");

/** Called at the driver's fault points. */
export const faults: { onPoint: (point: FaultPoint | GrowthFaultPoint) => void } = {
  onPoint: () => undefined,
};
(globalThis as unknown as Record<symbol, unknown>)[HOOK] = (point: FaultPoint | GrowthFaultPoint) =>
  faults.onPoint(point);

await new SimMachine({ seed: 0 }).close();
const life = await import("./life.js");

export const { startDriver } = life;
export const { FAULT_POINTS, GROWTH_FAULT_POINTS } = await import(
  "../../../data-plane/dist/fault-points.js"
);

const { LastingRemoval } = await import("../../dist/records/lasting-removal.js");
const { begin } = LastingRemoval.prototype;
let removals: Set<object> = new Set();
LastingRemoval.prototype.begin = function (remove): ReturnType<typeof begin> {
  const removing = begin.call(this, remove);
  const its = removals;
  its.add(removing);
  removing.done.then(
    () => its.delete(removing),
    () => undefined,
  );
  return removing;
};

/** How many removals of stale records a life of the driver is retrying. */
export function removalsUnderWay(): number {
  return removals.size;
}

/** Another life begins, and reads the records itself. */
export function forgetRemovals(): void {
  removals = new Set();
}

/** First words of the fault points that an operation reaches. */
export function stepsOf(operation: string): readonly string[] {
  return operation === "stop" ? ["detach", "destroy", "suspend"] : [operation];
}

const { GrowthWatch } = await import("../../dist/tracker/growth-watch.js");
const { GROWTH_POLL_INTERVAL_MS } = await import("../../dist/time-limits.js");

/** When originals were last looked at, for ones that have become larger. */
export const growthLooks: { now: () => number; atMs: number; readonly intervalMs: number } = {
  now: () => 0,
  atMs: 0,
  intervalMs: GROWTH_POLL_INTERVAL_MS,
};
const { look } = GrowthWatch.prototype;
GrowthWatch.prototype.look = function (): ReturnType<typeof look> {
  growthLooks.atMs = growthLooks.now();
  return look.call(this);
};
