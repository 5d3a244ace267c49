/**
 * Fronts of an earlier daemon that could not be resumed at the start: their original was away, or the kernel had not
 * released the dead server yet. Their users wait, so this retries until the front is resumed or gone. Their images are
 * lost by then: the snapshot continued without them.
 */

import { resolve } from "node:path";
import { ControlError, type DetachResponse } from "@blksnap/api";
import type { AreaId } from "@blksnap/data-plane";
import { Splice } from "@blksnap/linux-block";
import type { DriverContext } from "../context.js";
import { deviceLock } from "../driver-end.js";
import type { OperationLocks } from "../operations/operation-locks.js";
import { forgetRemembered } from "../operations/remembered.js";
import { StateFile } from "../records/file-names.js";
import type { TrackerRecord } from "../records/records.js";
import { identityOf } from "../system/path-target.js";
import {
  LATE_RECOVERY_INTERVAL_MS,
  LATE_RECOVERY_PATIENCE_MS,
  OPERATION_TURN_TIMEOUT_MS,
} from "../time-limits.js";
import { Tracker } from "../tracker/tracker.js";
import { recordEnds } from "./record-ends.js";

/**
 * Forgets a tracker whose front is gone, or has ended: it has no users any more. Returns false if its users still wait.
 */
export async function forgetIfGone(
  context: DriverContext,
  record: TrackerRecord,
): Promise<boolean> {
  if (!(await context.frontend.isFrontGone(record.front))) return false;
  forget(context, record);
  return true;
}

function forget({ state }: DriverContext, { id }: TrackerRecord): void {
  state.removeRecord(StateFile.trackerRecord.name(id));
  state.removeFile(StateFile.cbtMap.name(id));
}

/** A front that is not served yet, and why. */
export interface WaitingFront {
  readonly record: TrackerRecord;
  readonly why: string;
  /** Its areas that a later boot could find. */
  readonly kept: readonly AreaId[];
}

/** What recovery at the start could not serve. */
export interface NotServed {
  readonly waiting: readonly WaitingFront[];
  /** Whether the medium has recorded the ends of all trackers; see recordEnds(). */
  readonly endsRecorded?: boolean;
}

export class LateRecovery {
  readonly #context: DriverContext;
  readonly #waiting: Map<number, WaitingFront>;
  readonly #timer: NodeJS.Timeout | undefined;
  readonly #locks: OperationLocks;
  readonly #onRecovered: (tracker: Tracker) => void | Promise<void>;
  #trying = false;
  /** See recordEnds(). */
  #endsRecorded: boolean;

  /** @param onRecovered called with each recovered tracker, in its turn among other operations */
  constructor(
    context: DriverContext,
    { waiting, endsRecorded = true }: NotServed,
    locks: OperationLocks,
    onRecovered: (tracker: Tracker) => void | Promise<void>,
    intervalMs: number = LATE_RECOVERY_INTERVAL_MS,
  ) {
    this.#context = context;
    this.#waiting = new Map(waiting.map((front) => [front.record.id, front]));
    this.#locks = locks;
    this.#onRecovered = onRecovered;
    for (const { record } of waiting) this.#reserve(record);
    this.#endsRecorded = endsRecorded;
    if (this.#isDone) return;
    this.#timer = setInterval(() => void this.#tryAll(), intervalMs);
    this.#timer.unref();
  }

  get waiting(): readonly WaitingFront[] {
    return [...this.#waiting.values()];
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#waiting.clear();
  }

  /** @throws ControlError DEVICE_BUSY if a front of this device still waits */
  async assertNotWaiting(path: string): Promise<void> {
    const record = await this.#waitingOf(path);
    if (record === undefined) return;
    const { frontend } = this.#context;
    const name = frontend.nameOf(record.front);
    throw new ControlError("DEVICE_BUSY", `the front ${name} of ${path} still waits`, {
      hint:
        frontend.kind === "nbd"
          ? "It is resumed when its original is back; detach it to give it up"
          : "It is resumed when its device and the kernel allow it; see the daemon's log",
    });
  }

  /**
   * Gives up a front that waits and is an export, which nothing else could end. A front that is a device has users, or
   * is removed with it. If the path leads to something untracked, such as a restored image file, a front that had this
   * path at attach counts.
   * @param detach called if no front of this path waits
   * @param forgets removes the record of a front that is given up, too
   * @returns what was given up, or the result of `detach`
   */
  async giveUpOr(
    path: string,
    detach: () => Promise<DetachResponse>,
    forgets = false,
  ): Promise<DetachResponse> {
    if (this.#context.frontend.kind !== "nbd") return detach();
    const found = await this.#identityAt(path);
    const waiting = this.#waitingAs(found, path);
    if (waiting !== undefined) return this.#giveUp(waiting, found, detach, forgets);
    return detach().catch((error: ControlError) => {
      const isIt = ({ record: { device } }: WaitingFront) => device === resolve(path);
      const named = this.waiting.find(isIt);
      if (named === undefined || error.code !== "NOT_ATTACHED") throw error;
      return this.#giveUp(named.record, found, detach, forgets);
    });
  }

  /**
   * Runs in the front's turn: it may have been resumed meanwhile, and is detached then.
   * @param held identity whose turn it is already; undefined: the record's, as nothing is at its path
   */
  async #giveUp(
    record: TrackerRecord,
    held: string | undefined,
    detach: () => Promise<DetachResponse>,
    forgets: boolean,
  ): Promise<DetachResponse> {
    const { device, identity, uuid } = record;
    const giveUp = async (): Promise<DetachResponse> => {
      if (!this.#waiting.has(record.id)) return detach();
      forget(this.#context, record);
      this.#end(record);
      this.#context.logger.warn({ device }, "its waiting front is given up");
      if (forgets && uuid !== undefined) await forgetRemembered(this.#context, { uuid, device });
      return { device, front: this.#context.frontend.nameOf(null) };
    };
    if (held === undefined || held === identity) return giveUp();
    const options = { what: `the end of ${device}`, waitMs: OPERATION_TURN_TIMEOUT_MS };
    return this.#locks.run([deviceLock(record)], options, giveUp);
  }

  async #waitingOf(path: string): Promise<TrackerRecord | undefined> {
    return this.#waitingAs(await this.#identityAt(path), path);
  }

  async #identityAt(path: string): Promise<string | undefined> {
    if (this.#waiting.size === 0) return undefined;
    return identityOf(path, this.#context.blockDevices.lookUp).catch(() => undefined);
  }

  #waitingAs(found: string | undefined, path: string): TrackerRecord | undefined {
    for (const { record } of this.#waiting.values()) {
      const { device, identity } = record;
      const its = [identity, Splice.onRecord(record)?.identity];
      // The name at attach counts only if it leads to nothing else now.
      const isIt = found === undefined ? device === resolve(path) : its.includes(found);
      if (isIt) return record;
    }
    return undefined;
  }

  #end({ id, uuid }: TrackerRecord): void {
    this.#waiting.delete(id);
    if (uuid === undefined) return;
    this.#context.persistent.inUse.delete(uuid);
    this.#endsRecorded = false;
  }

  async #tryAll(): Promise<void> {
    if (this.#trying) return;
    this.#trying = true;
    for (const { record } of this.waiting) await this.#tryInTurn(record);
    if (!this.#endsRecorded) this.#endsRecorded = await recordEnds(this.#context, true);
    this.#trying = false;
    if (this.#isDone) clearInterval(this.#timer);
  }

  /** Resolves when it was tried. Later work may take its time: it holds the device, not the other fronts' turn. */
  #tryInTurn(record: TrackerRecord): Promise<void> {
    const names = [deviceLock({ ...record, splice: Splice.onRecord(record) })];
    const what = `the return of ${record.device}`;
    return new Promise((tried) => {
      this.#locks
        .run(names, { what }, () => this.#try(record, tried))
        .catch((error: unknown) => this.#say(record, error))
        .finally(tried);
    });
  }

  get #isDone(): boolean {
    return this.#waiting.size === 0 && this.#endsRecorded;
  }

  async #try(record: TrackerRecord, tried: () => void): Promise<void> {
    const front = this.#waiting.get(record.id);
    if (front === undefined) return;
    const { logger } = this.#context;
    if (await forgetIfGone(this.#context, record)) {
      this.#end(record);
      logger.warn({ device: record.device }, "its front ended before it could be resumed");
      return;
    }
    const tracker = await Tracker.recover(
      this.#context,
      record,
      { kept: front.kept },
      LATE_RECOVERY_PATIENCE_MS,
    );
    this.#waiting.delete(record.id);
    logger.info({ device: record.device, front: tracker.front.path }, "serving again, late");
    const notified = this.#notify(tracker);
    tried();
    await notified;
  }

  /** The front is served, even if something fails here. */
  async #notify(tracker: Tracker): Promise<void> {
    const { device } = tracker;
    try {
      await this.#onRecovered(tracker);
    } catch (error) {
      this.#context.logger.error({ device, err: error }, "its live attach is not settled");
    }
  }

  /** The records of a device whose front waits must not be used for another one, such as its copy. */
  #reserve({ uuid }: TrackerRecord): void {
    if (uuid !== undefined) this.#context.persistent.inUse.add(uuid);
  }

  /** Logs each reason once, because the attempts continue without limit. */
  #say(record: TrackerRecord, error: unknown): void {
    this.#reserve(record);
    const { id, device } = record;
    const { message: why } = error as Error;
    const front = this.#waiting.get(id);
    if (front?.why === why) return;
    this.#waiting.set(id, { record, why, kept: front?.kept ?? [] });
    this.#context.logger.warn({ device, err: error }, "its front still waits; retrying");
  }
}
