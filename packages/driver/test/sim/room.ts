/**
 * How much room a snapshot has, and its policy when that is not enough. With fail-writes its images stay complete; with
 * block-writes a write waits a little, and then the images lose what it covers.
 */
import type { OverflowPolicy } from "@blksnap/api";
import type { Device, SimSnapshot } from "./device.js";
import { ENOSPC } from "./losses.js";
import type { Simulation } from "./simulation.js";

const LIMIT_BYTES = 2 ** 23;
/** Room for a few chunks. */
const SMALL_LIMIT_BYTES = 2 ** 18;
/** Some steps of the simulation. */
const BLOCKED_MS = 5;

const POLICIES: readonly OverflowPolicy[] = [
  { policy: "break-snapshot" },
  { policy: "fail-writes" },
  { policy: "block-writes", timeout_ms: BLOCKED_MS },
];

/** The options of a snapshot, and their possible consequences. */
export interface Room {
  readonly name: string;
  readonly asked: { readonly limitBytes: number; readonly onOverflow?: OverflowPolicy };
  readonly expected: Pick<SimSnapshot, "mayLose" | "mayBeFull" | "failsWrites">;
}

export function chooseRoom({ hasFailures, random }: Simulation): Room {
  if (!hasFailures) {
    const expected = { mayLose: new Set<number>(), mayBeFull: false, failsWrites: false };
    return { name: "", asked: { limitBytes: LIMIT_BYTES }, expected };
  }
  const isSmall = random.oneIn(3);
  const onOverflow = POLICIES[random.below(POLICIES.length)] as OverflowPolicy;
  const failsWrites = onOverflow.policy === "fail-writes";
  return {
    name: ` ${onOverflow.policy}${isSmall ? " small" : ""}`,
    asked: { limitBytes: isSmall ? SMALL_LIMIT_BYTES : LIMIT_BYTES, onOverflow },
    expected: {
      mayLose: new Set(isSmall && !failsWrites ? [ENOSPC] : []),
      mayBeFull: isSmall,
      failsWrites,
    },
  };
}

/** Whether a snapshot may make a write to this front fail. */
export function mayRefuse({ snapshots }: Simulation, device: Device): boolean {
  return snapshots.some(({ devices, failsWrites, mayBeFull, mayLose }) => {
    return failsWrites && devices.includes(device) && (mayBeFull || mayLose.size > 0);
  });
}
