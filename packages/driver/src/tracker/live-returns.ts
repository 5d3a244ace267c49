/**
 * Volumes that are detached because another program gave their node another table, and are to be attached again. Each
 * has a record from before its detach until it is tracked again, users give it up, or its node is gone: a daemon that
 * is killed in between leaves it to the next one.
 *
 * An attach that kills its daemon would kill each further one, too, and interrupt the service of other volumes. So an
 * attempt is recorded from beginning to end, and attempts that no daemon has seen end are counted: each of them makes
 * the next daemon wait longer, and after three the volume stays away, listed, until users attach it or give it up. A
 * daemon that survives some failed attempts shows that they do not kill: earlier ones had other causes, and do not
 * count any more.
 */
import { resolve } from "node:path";
import { Splice } from "@blksnap/linux-block";
import type { DriverContext } from "../context.js";
import { deviceLock } from "../driver-end.js";
import { StateFile } from "../records/file-names.js";
import { type AwayRecord, type NewGeneration, readReturns } from "../records/return-records.js";
import { identityOf } from "../system/path-target.js";
import type { Tracker } from "./tracker.js";

/** Most attempts that may end with their daemon. */
const UNENDED_MAX = 3;
/** Failures that a daemon survives; after a single one, such as while LVM is at work, the next may still kill. */
const SURVIVED_ENOUGH = 3;

/** A volume that will be attached again. */
export interface Away {
  /** Its name at attach. */
  readonly device: string;
  /** Its node, which does not lead to a front now. */
  readonly splice: Splice;
  /** The front that it had. */
  readonly front: string;
  readonly reason: NewGeneration;
  /** Time of its detach. */
  readonly since: string;
  /** Error of the last attempt; null if none has failed yet. */
  readonly why: string | null;
  /** Attempts that have ended with their daemon. */
  readonly unended: number;
}

/** Whether only users can attach it from now on. */
export function isGivenUp({ unended }: Pick<Away, "unended">): boolean {
  return unended >= UNENDED_MAX;
}

type Context = Pick<DriverContext, "state" | "logger" | "blockDevices">;

export class LiveReturns {
  readonly #context: Context;
  /** By number of the node. */
  readonly #all = new Map<string, Away>();
  /** By number of the node: failures that this daemon has survived. */
  readonly #survived = new Map<string, number>();
  readonly #underWay = new Set<Away>();
  #isClosed = false;

  readonly #trackers: () => Iterable<Tracker>;

  /** @param trackers all trackers: a tracked volume is not away */
  constructor(context: Context, trackers: () => Iterable<Tracker> = () => []) {
    this.#context = context;
    this.#trackers = trackers;
  }

  get all(): readonly Away[] {
    return [...this.#all.values()];
  }

  /** Volumes that are not tracked at present. */
  get untracked(): readonly Away[] {
    return this.all.filter(({ splice }) => this.isUntracked(splice));
  }

  isUntracked(splice: Splice): boolean {
    const lock = deviceLock(splice);
    return ![...this.#trackers()].some((one) => deviceLock(one) === lock);
  }

  /** Loads the records that an earlier daemon has left. */
  load(): readonly Away[] {
    for (const record of readReturns(this.#context)) {
      const { unended = 0, live, ...rest } = record;
      const splice = new Splice(live);
      this.#all.set(live.number, { ...rest, splice, unended, why: whyUnended(unended) });
    }
    return this.all;
  }

  /** Records a volume before its detach. @throws ControlError OUT_OF_MEMORY: it must not be detached */
  begin(one: Omit<Away, "since" | "why" | "unended">): Away {
    const away = { ...one, since: new Date().toISOString(), why: null, unended: 0 };
    this.#write(away, 0);
    this.#all.set(away.splice.node.number, away);
    return away;
  }

  /**
   * Records an attempt while it lasts: the next daemon counts it if it finds it.
   * @param attempt attaches the volume; if it fails, it no longer counts, because this daemon has survived it
   * @throws ControlError OUT_OF_MEMORY: the attempt was not made; as `attempt`
   */
  async counted(away: Away, attempt: () => Promise<void>): Promise<void> {
    this.#write(away, this.#latest(away).unended + 1);
    this.#underWay.add(away);
    try {
      await attempt();
    } catch (error) {
      if (this.isWanted(away)) {
        this.#noteSurvived(away);
        this.#uncount(away);
      }
      throw error;
    } finally {
      this.#underWay.delete(away);
    }
  }

  /** This daemon leaves on request: attempts in progress do not count. */
  uncountUnderWay(): void {
    for (const away of this.#underWay) {
      if (this.isWanted(away)) this.#uncount(away);
    }
  }

  /** Its present state. */
  #latest(away: Away): Away {
    return this.#all.get(away.splice.node.number) ?? away;
  }

  #noteSurvived(away: Away): void {
    const { number } = away.splice.node;
    const survived = (this.#survived.get(number) ?? 0) + 1;
    this.#survived.set(number, survived);
    if (survived < SURVIVED_ENOUGH) return;
    this.#all.set(number, { ...this.#latest(away), unended: 0 });
  }

  #uncount(away: Away): void {
    try {
      this.#write(away, this.#latest(away).unended);
    } catch (error) {
      const text = "the record of a failed attempt is not updated: the next daemon counts it";
      this.#context.logger.error({ device: away.device, err: error }, text);
    }
  }

  #write({ device, front, reason, since, splice }: Away, unended: number): void {
    const record: AwayRecord = { device, live: splice.node, front, reason, since, unended };
    const name = StateFile.returnRecord.name(splice.node.number);
    if (!this.#isClosed) this.#context.state.writeRecord(name, record);
  }

  /** Whether it is still to be attached. */
  isWanted({ splice, since }: Away): boolean {
    return this.#all.get(splice.node.number)?.since === since;
  }

  noteFailure(one: Away, why: string): void {
    if (this.isWanted(one)) this.#all.set(one.splice.node.number, { ...this.#latest(one), why });
  }

  /** It is tracked again, or is not wanted any more. @param number of the node */
  end(number: string): void {
    this.#survived.delete(number);
    if (!this.#all.delete(number)) return;
    try {
      this.#context.state.removeRecord(StateFile.returnRecord.name(number));
    } catch (error) {
      const text = "the record of a returned volume is not removed: the next daemon checks it";
      this.#context.logger.error({ node: number, err: error }, text);
    }
  }

  /** As end(), for a device that is tracked again; the caller holds its lock. */
  endOf(tracker: Tracker): void {
    const away = this.#of(tracker);
    if (away !== undefined) this.end(away.splice.node.number);
  }

  /** Whether a device is attached again automatically when it is no longer tracked. */
  isFollowed(tracker: Tracker): boolean {
    const away = this.#of(tracker);
    return away !== undefined && !isGivenUp(away);
  }

  #of(tracker: Tracker): Away | undefined {
    const lock = deviceLock(tracker);
    return this.all.find(({ splice }) => deviceLock(splice) === lock);
  }

  /** The volume that a path means, or meant before a rename of its node; undefined if it is tracked. */
  async at(path: string): Promise<Away | undefined> {
    if (this.#all.size === 0) return undefined;
    const { lookUp } = this.#context.blockDevices;
    const identity = await identityOf(path, lookUp).catch(() => undefined);
    if (identity === undefined) return this.named(path);
    return this.untracked.find(({ splice }) => splice.hasIdentity(identity));
  }

  /** The volume that had this path, or whose uuid is in it, as in udev's links; nothing is at the path now. */
  named(path: string): Away | undefined {
    const name = resolve(path);
    return this.untracked.find(({ device, splice: { node } }) => {
      const links = [`/dev/mapper/${node.name}`, `/dev/disk/by-id/dm-uuid-${node.uuid}`];
      return name === device || links.includes(name);
    });
  }

  /** Nothing will be attached any more, not even by the next daemon: everything tracked is about to be detached. */
  close(): void {
    this.#isClosed = true;
    for (const number of this.#all.keys()) this.end(number);
  }
}

/** The log text of a daemon that has found it. */
export function returnText(away: Away): string {
  if (isGivenUp(away)) {
    return `not tracked, and NOT attached again automatically: ${away.why}; attach it, or detach it`;
  }
  const text = "not tracked: the previous daemon did not attach it again; this one will";
  return away.why === null ? text : `${text} after a while: ${away.why}`;
}

function whyUnended(unended: number): string | null {
  if (unended === 0) return null;
  const many = unended === 1 ? "a daemon has" : `${unended} daemons have`;
  return `${many} ended while attaching it`;
}
