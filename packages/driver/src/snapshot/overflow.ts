/**
 * What happens to writes to an original when the diff storage has no room for their old data, as chosen at the
 * snapshot's creation.
 *
 * ```
 *   break-snapshot   the write continues, its blocks of the image are lost
 *   fail-writes      the write fails with ENOSPC (EIO: the store is broken), the image stays complete
 *   block-writes     the write waits for room; after the time limit as break-snapshot
 * ```
 *
 * A blocked write waits at most for: the time limit of a storage growth (10 s), after which it is known that there is
 * no room, then the policy's time limit and one tick.
 */
import type { OverflowPolicy } from "@blksnap/api";
import { ControlError } from "@blksnap/api";
import type { OverflowSetup } from "@blksnap/data-plane";
import { OverflowPolicy as EnginePolicy } from "@blksnap/engine";
import { BLOCKED_WRITES_INTERVAL_MS, BLOCKED_WRITES_TIMEOUT_MS } from "../time-limits.js";

const TICKS_MIN = 8;

const ENGINE_POLICY = {
  "break-snapshot": EnginePolicy.BREAK_SNAPSHOT,
  "fail-writes": EnginePolicy.FAIL_WRITES,
  "block-writes": EnginePolicy.BLOCK_WRITES,
} as const;

/** The policy with defaults. @throws ControlError REQUEST_INVALID */
export function completePolicy(given: OverflowPolicy | undefined): OverflowPolicy {
  const policy = given?.policy ?? "break-snapshot";
  if (policy === "block-writes") {
    return { policy, timeout_ms: given?.timeout_ms ?? BLOCKED_WRITES_TIMEOUT_MS };
  }
  if (given?.timeout_ms !== undefined) {
    throw new ControlError("REQUEST_INVALID", "timeout_ms is for the policy block-writes");
  }
  return { policy };
}

export function overflowSetup({ policy, timeout_ms }: OverflowPolicy): OverflowSetup {
  const timeoutMs = timeout_ms ?? BLOCKED_WRITES_TIMEOUT_MS;
  const tickMs = Math.min(BLOCKED_WRITES_INTERVAL_MS, Math.ceil(timeoutMs / TICKS_MIN));
  return { policy: ENGINE_POLICY[policy], tickMs, ticksMax: Math.ceil(timeoutMs / tickMs) };
}
