/**
 * Volumes that are away: detached because another program gave their node another table, and to be attached again. Each is
 * on record from before its detach until it is tracked again, is given up, or its node is gone: a daemon that is killed
 * in between leaves it to the next one.
 */
import { resolve } from "node:path";
import { type LiveNode, Splice } from "@blksnap/linux-block";
import type { DriverContext } from "../context.js";
import { deviceLock } from "../driver-end.js";
import { StateFile } from "../records/file-names.js";
import { usableRecords } from "../records/usable-records.js";
import { identityOf } from "../system/path-target.js";
import type { Tracker } from "./tracker.js";

/** Why a new generation begins. */
export type NewGeneration = "capacity_changed" | "interrupted";

/** A volume that is to be attached again. */
export interface Away {
  /** The name that it was attached by. */
  readonly device: string;
  /** Where its node is; that is not under a front. */
  readonly splice: Splice;
  /** The front that it had. */
  readonly front: string;
  readonly reason: NewGeneration;
  /** Of its detach. */
  readonly since: string;
  /** Of the last attempt; null where none has failed yet. */
  readonly why: string | null;
}

interface AwayRecord {
  readonly device: string;
  readonly live: LiveNode;
  readonly front: string;
  readonly reason: NewGeneration;
  readonly since: string;
}

type Context = Pick<DriverContext, "state" | "logger" | "blockDevices">;

export class LiveReturns {
  readonly #context: Context;
  /** By number of the node. */
  readonly #all = new Map<string, Away>();
  #isClosed = false;

  readonly #trackers: () => Iterable<Tracker>;

  /** @param trackers all that there are: what is tracked is not away */
  constructor(context: Context, trackers: () => Iterable<Tracker> = () => []) {
    this.#context = context;
    this.#trackers = trackers;
  }

  get all(): readonly Away[] {
    return [...this.#all.values()];
  }

  /** Those that nothing tracks just now. */
  get untracked(): readonly Away[] {
    return this.all.filter(({ splice }) => this.isUntracked(splice));
  }

  isUntracked(splice: Splice): boolean {
    const lock = deviceLock(splice);
    return ![...this.#trackers()].some((one) => deviceLock(one) === lock);
  }

  /** What an earlier daemon did not come to. */
  load(): readonly Away[] {
    const { state, logger } = this.#context;
    const found = state.readRecords(StateFile.returnRecord.prefix);
    for (const record of usableRecords<AwayRecord>(found, logger)) {
      const splice = new Splice(record.live);
      this.#all.set(splice.node.number, { ...record, splice, why: null });
    }
    return this.all;
  }

  /** Before it is detached. @throws ControlError OUT_OF_MEMORY: it is not to be detached then */
  begin(one: Omit<Away, "since" | "why">): Away {
    const away = { ...one, since: new Date().toISOString(), why: null };
    const { device, front, reason, since, splice } = away;
    const record: AwayRecord = { device, live: splice.node, front, reason, since };
    const { number } = splice.node;
    if (!this.#isClosed)
      this.#context.state.writeRecord(StateFile.returnRecord.name(number), record);
    this.#all.set(number, away);
    return away;
  }

  /** Whether it is still to be attached. */
  isWanted({ splice, since }: Away): boolean {
    return this.#all.get(splice.node.number)?.since === since;
  }

  noteFailure(one: Away, why: string): void {
    if (this.isWanted(one)) this.#all.set(one.splice.node.number, { ...one, why });
  }

  /** It is tracked again, or is not wanted any more. @param number of the node */
  end(number: string): void {
    if (!this.#all.delete(number)) return;
    try {
      this.#context.state.removeRecord(StateFile.returnRecord.name(number));
    } catch (error) {
      const text = "the record of a volume that was away is left: the next daemon looks at it";
      this.#context.logger.error({ node: number, err: error }, text);
    }
  }

  /** Of a device that is tracked again; its lock is held. */
  endOf(tracker: Tracker): void {
    const lock = deviceLock(tracker);
    for (const { splice } of this.all) {
      if (deviceLock(splice) === lock) this.end(splice.node.number);
    }
  }

  /** The one that a path means, or meant at its attach where nothing is there; undefined for what is tracked. */
  async at(path: string): Promise<Away | undefined> {
    if (this.#all.size === 0) return undefined;
    const { lookAt } = this.#context.blockDevices;
    const identity = await identityOf(path, lookAt).catch(() => undefined);
    return this.untracked.find(({ device, splice }) =>
      identity === undefined ? device === resolve(path) : splice.hasIdentity(identity),
    );
  }

  /** Nothing is to be attached any more, by the next daemon neither: all that is tracked is about to be detached. */
  close(): void {
    this.#isClosed = true;
    for (const number of this.#all.keys()) this.end(number);
  }
}
