/** Waits until another daemon serves, or none does. */
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import type { DaemonUpgradeResponse } from "@blksnap/api";
import { BlksnapClientError } from "./client-error.js";
import { RunLimit } from "./run-limit.js";

const PAUSE_MS = 20;

/** The outcome of an upgrade. */
export interface DaemonUpgrade {
  readonly from: { readonly pid: number; readonly version: string };
  readonly to: { readonly pid: number; readonly version: string };
  readonly started_by: DaemonUpgradeResponse["started_by"];
  /** How long no daemon served the devices. */
  readonly pause_ms: number | null;
}

/** Errors of a call while one daemon leaves and the next one starts. */
const IN_BETWEEN: readonly string[] = [
  "DAEMON_NOT_RUNNING",
  "CONNECTION_LOST",
  "STARTING",
  "SHUTTING_DOWN",
];

export function isInBetween(error: unknown): boolean {
  return error instanceof BlksnapClientError && IN_BETWEEN.includes(error.code);
}

/** The first response that matches. @param timeoutMs 0: no limit. @throws BlksnapClientError TIMEOUT; other errors unchanged */
export async function untilAnswer<Answer>(
  ask: () => Promise<Answer>,
  isWanted: (answer: Answer) => boolean,
  timeoutMs: number,
): Promise<Answer> {
  const limit = new RunLimit(timeoutMs);
  try {
    for (;;) {
      try {
        const answer = await ask();
        if (isWanted(answer)) return answer;
      } catch (error) {
        if (!isInBetween(error)) throw error;
      }
      if (timeoutMs > 0 && limit.isOver) {
        const why = `no other daemon answers within ${timeoutMs / 1000} s`;
        throw new BlksnapClientError("TIMEOUT", why);
      }
      await sleep(PAUSE_MS);
    }
  } finally {
    limit.end();
  }
}

/**
 * Waits until a process has ended or, if it is not visible, no longer responds. A visible one is not contacted: a
 * service manager that owns the socket would start the next daemon.
 * @param pidNow of the daemon that responds
 * @param timeoutMs 0: no limit
 */
export async function untilGone(
  pid: number,
  pidNow: () => Promise<number>,
  timeoutMs: number,
): Promise<void> {
  const limit = new RunLimit(timeoutMs);
  const isSeen = runs(pid);
  try {
    while (isSeen ? runs(pid) : (await answering(pidNow)) === pid) {
      if (timeoutMs > 0 && limit.isOver) {
        const why = `daemon ${pid} has not ended in ${timeoutMs / 1000} s`;
        throw new BlksnapClientError("TIMEOUT", why);
      }
      await sleep(PAUSE_MS);
    }
  } finally {
    limit.end();
  }
}

/** False also for a zombie. */
function runs(pid: number): boolean {
  try {
    return !readFileSync(`/proc/${pid}/stat`, "utf8").includes(") Z ");
  } catch {
    return false;
  }
}

async function answering(pidNow: () => Promise<number>): Promise<number | undefined> {
  try {
    return await pidNow();
  } catch (error) {
    if (isInBetween(error)) return undefined;
    throw error;
  }
}
