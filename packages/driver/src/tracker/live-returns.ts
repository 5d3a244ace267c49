/**
 * Volumes that are away: detached because another program gave their node another table, and to be attached again. Each is
 * on record from before its detach until it is tracked again, users give it up, or its node is gone: a daemon that is
 * killed in between leaves it to the next one.
 *
 * An attach that kills its daemon would kill each next one, and take the service of other volumes with it. So attempts are
 * on record from their begin to their end, and those that no daemon has seen the end of are counted: each has the next one
 * wait for longer, and after three the volume stays as it is, listed, until users attach it or give it up. A daemon that has
 * seen some attempts fail, and lives, shows that they do not kill: those before were other ends, and count no more.
 */
import { resolve } from "node:path";
import { Splice } from "@blksnap/linux-block";
import type { DriverContext } from "../context.js";
import { deviceLock } from "../driver-end.js";
import { StateFile } from "../records/file-names.js";
import { type AwayRecord, type NewGeneration, readReturns } from "../records/return-records.js";
import { identityOf } from "../system/path-target.js";
import type { Tracker } from "./tracker.js";

/** Attempts that may end with their daemon. */
const UNENDED_MAX = 3;
/** Failures that a daemon sees, and survives; after a single one, as while LVM is at work, the next may still kill. */
const SURVIVED_ENOUGH = 3;

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
  /** Attempts that have ended with their daemon. */
  readonly unended: number;
}

/** Whether it is attached by users alone from now on. */
export function isGivenUp({ unended }: Pick<Away, "unended">): boolean {
  return unended >= UNENDED_MAX;
}

type Context = Pick<DriverContext, "state" | "logger" | "blockDevices">;

export class LiveReturns {
  readonly #context: Context;
  /** By number of the node. */
  readonly #all = new Map<string, Away>();
  /** By number of the node: failures that this daemon has seen since its begin. */
  readonly #survived = new Map<string, number>();
  readonly #underWay = new Set<Away>();
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
    for (const record of readReturns(this.#context)) {
      const { unended = 0, live, ...rest } = record;
      const splice = new Splice(live);
      this.#all.set(live.number, { ...rest, splice, unended, why: whyUnended(unended) });
    }
    return this.all;
  }

  /** Before it is detached. @throws ControlError OUT_OF_MEMORY: it is not to be detached then */
  begin(one: Omit<Away, "since" | "why" | "unended">): Away {
    const away = { ...one, since: new Date().toISOString(), why: null, unended: 0 };
    this.#write(away, 0);
    this.#all.set(away.splice.node.number, away);
    return away;
  }

  /**
   * On record while it lasts: the next daemon counts one that it finds there.
   * @param attempt to attach it; whether it fails or not, this daemon sees its end
   * @throws ControlError OUT_OF_MEMORY: it is not tried then; as `attempt`
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

  /** This daemon ends as it was told to, whatever it is at: those attempts do not end it. */
  uncountUnderWay(): void {
    for (const away of this.#underWay) {
      if (this.isWanted(away)) this.#uncount(away);
    }
  }

  /** As it is known by now. */
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

  /** Of a device that is tracked again; its lock is held. */
  endOf(tracker: Tracker): void {
    const away = this.#of(tracker);
    if (away !== undefined) this.end(away.splice.node.number);
  }

  /** Whether a device is attached by itself when it is tracked no more. */
  isFollowed(tracker: Tracker): boolean {
    const away = this.#of(tracker);
    return away !== undefined && !isGivenUp(away);
  }

  #of(tracker: Tracker): Away | undefined {
    const lock = deviceLock(tracker);
    return this.all.find(({ splice }) => deviceLock(splice) === lock);
  }

  /** The one that a path means, or meant before its node was renamed; undefined for what is tracked. */
  async at(path: string): Promise<Away | undefined> {
    if (this.#all.size === 0) return undefined;
    const { lookAt } = this.#context.blockDevices;
    const identity = await identityOf(path, lookAt).catch(() => undefined);
    if (identity === undefined) return this.named(path);
    return this.untracked.find(({ splice }) => splice.hasIdentity(identity));
  }

  /** The one that had this path, or has its uuid in it as udev's links have; nothing is there now. */
  named(path: string): Away | undefined {
    const name = resolve(path);
    return this.untracked.find(({ device, splice: { node } }) => {
      const links = [`/dev/mapper/${node.name}`, `/dev/disk/by-id/dm-uuid-${node.uuid}`];
      return name === device || links.includes(name);
    });
  }

  /** Nothing is to be attached any more, by the next daemon neither: all that is tracked is about to be detached. */
  close(): void {
    this.#isClosed = true;
    for (const number of this.#all.keys()) this.end(number);
  }
}

/** For the log of a daemon that has found it. */
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
