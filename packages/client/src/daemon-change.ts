/** Waits until another daemon answers, or none does any more. */
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import type { DaemonUpgradeResponse } from "@blksnap/api";
import { BlksnapClientError } from "./client-error.js";

const PAUSE_MS = 20;

/** What an upgrade came to. */
export interface DaemonUpgrade {
  readonly from: { readonly pid: number; readonly version: string };
  readonly to: { readonly pid: number; readonly version: string };
  readonly started_by: DaemonUpgradeResponse["started_by"];
  /** For how long no daemon served the devices. */
  readonly pause_ms: number | null;
}

/** How a call fails while one daemon leaves and the next one comes. */
const IN_BETWEEN: readonly string[] = [
  "DAEMON_NOT_RUNNING",
  "CONNECTION_LOST",
  "STARTING",
  "SHUTTING_DOWN",
];

export function isInBetween(error: unknown): boolean {
  return error instanceof BlksnapClientError && IN_BETWEEN.includes(error.code);
}

/** The first answer that is the wanted one. @throws BlksnapClientError TIMEOUT; other errors as is */
export async function untilAnswer<Answer>(
  ask: () => Promise<Answer>,
  isWanted: (answer: Answer) => boolean,
  timeoutMs: number,
): Promise<Answer> {
  const deadlineMs = performance.now() + timeoutMs;
  for (;;) {
    try {
      const answer = await ask();
      if (isWanted(answer)) return answer;
    } catch (error) {
      if (!isInBetween(error)) throw error;
    }
    if (performance.now() > deadlineMs) {
      throw new BlksnapClientError(
        "TIMEOUT",
        `no other daemon answers within ${timeoutMs / 1000} s`,
      );
    }
    await sleep(PAUSE_MS);
  }
}

/**
 * Waits until a process has ended, or where it cannot be seen, no longer answers. One that is seen is not asked: a service
 * manager that has made the socket would start the next one for it.
 * @param pidNow of the daemon that answers
 */
export async function untilGone(
  pid: number,
  pidNow: () => Promise<number>,
  timeoutMs: number,
): Promise<void> {
  const deadlineMs = performance.now() + timeoutMs;
  const isSeen = runs(pid);
  while (isSeen ? runs(pid) : (await answering(pidNow)) === pid) {
    if (performance.now() > deadlineMs) {
      throw new BlksnapClientError(
        "TIMEOUT",
        `daemon ${pid} has not ended in ${timeoutMs / 1000} s`,
      );
    }
    await sleep(PAUSE_MS);
  }
}

/** False also for one that has ended and whose parent does not care. */
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
