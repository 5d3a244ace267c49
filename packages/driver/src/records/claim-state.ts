/** Taking possession of a state directory from a daemon that may be about to leave. */
import { setTimeout as sleep } from "node:timers/promises";
import { ControlError } from "@blksnap/api";
import { STATE_CLAIM_INTERVAL_MS } from "../time-limits.js";
import { StateDirectory } from "./state-directory.js";

/** @throws ControlError ALREADY_RUNNING when another daemon still has it after `timeoutMs` */
export async function claimState(path: string, timeoutMs: number): Promise<StateDirectory> {
  const deadlineMs = performance.now() + timeoutMs;
  for (;;) {
    try {
      return new StateDirectory(path);
    } catch (error) {
      const isTaken = error instanceof ControlError && error.code === "ALREADY_RUNNING";
      if (!isTaken || performance.now() > deadlineMs) throw error;
    }
    await sleep(STATE_CLAIM_INTERVAL_MS);
  }
}
