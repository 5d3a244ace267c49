/** The note that a daemon leaves for its successor if it ends and its devices stay. */
import { readBootIdSync } from "@blksnap/linux-block";
import type { Logger } from "pino";
import { StateFile } from "./records/file-names.js";
import type { StateDirectory } from "./records/state-directory.js";
import { DAEMON_VERSION } from "./version.js";

interface HandoverRecord {
  readonly pid: number;
  readonly version: string;
  /** CLOCK_MONOTONIC, of this boot. */
  readonly leftAtNs: string;
  readonly bootId: string;
}

/** Which daemon left the devices to this one, and how long they were not served. */
export interface Handover {
  readonly pid: number;
  readonly version: string;
  readonly pauseMs: number;
}

/** Called last: the pause begins here. A failure is only logged. */
export function writeHandover(state: StateDirectory, logger: Pick<Logger, "warn">): void {
  const record: HandoverRecord = {
    pid: process.pid,
    version: DAEMON_VERSION,
    leftAtNs: String(process.hrtime.bigint()),
    bootId: readBootIdSync(),
  };
  try {
    state.writeRecord(StateFile.handover, record);
  } catch (error) {
    logger.warn({ err: error }, "the next daemon will not know about the pause");
  }
}

/** Reads and removes the note; null if the last daemon has left none: it was killed. */
export function readHandover(state: StateDirectory): Handover | null {
  const found = state.readRecords(StateFile.handover)[0];
  if (found === undefined) return null;
  state.removeRecord(StateFile.handover);
  if (found.problem !== undefined) return null;
  const { pid, version, leftAtNs, bootId: boot } = found.value as HandoverRecord;
  if (boot !== readBootIdSync()) return null;
  const pauseNs = process.hrtime.bigint() - BigInt(leftAtNs);
  return { pid, version, pauseMs: Math.round(Number(pauseNs) / 1e6) };
}
