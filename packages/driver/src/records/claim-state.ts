/** Takes possession of a state directory, perhaps from a daemon that is about to leave. */
import { ControlError } from "@blksnap/api";
import { retry } from "@blksnap/uring";
import { STATE_CLAIM_INTERVAL_MS } from "../time-limits.js";
import { StateDirectory } from "./state-directory.js";

/** @throws ControlError ALREADY_RUNNING if another daemon still has it after `timeoutMs` */
export function claimState(path: string, timeoutMs: number): Promise<StateDirectory> {
  return retry(async () => new StateDirectory(path), {
    isPassing: (error) => error instanceof ControlError && error.code === "ALREADY_RUNNING",
    deadlineMs: performance.now() + timeoutMs,
    intervalMs: STATE_CLAIM_INTERVAL_MS,
  });
}
