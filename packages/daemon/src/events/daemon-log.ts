/**
 * The log of the whole daemon: compares status with what it was before, and makes an event of each change.
 *
 * ```
 *   a request was answered ─┐
 *   a while has passed     ─┼─▶ status ─▶ facts ─▶ differences ─▶ log ─▶ readers
 *   a snapshot's own event ─┘               │                      │
 *                                   events-facts.json        events.log, both in the state directory
 * ```
 *
 * So no change of status is missed, and no part of the driver has to report it. The next daemon compares with what
 * the last one knew, so that events report losses in a crash, too.
 */
import { randomUUID } from "node:crypto";
import { mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import {
  type DaemonEvent,
  type DaemonEventKind,
  type DriverControl,
  daemonEventSchemas,
  type EventLogControl,
  type EventLogOptions,
  type StatusResponse,
} from "@blksnap/api";
import { StateFile } from "@blksnap/driver";
import { type Delivery, KeptEventQueue } from "@blksnap/event-queue";
import type { Logger } from "pino";
import { bootClockMs } from "../config/served.js";
import { replaceFile } from "../replace-file.js";
import { differences, type NewDaemonEvent, reportedFacts } from "./differences.js";
import { areFacts, type Facts, factsOf, NO_FACTS } from "./facts.js";
import { daemonEventOf } from "./snapshot-events.js";

/** Version of that file; other versions are not compared. */
const FACTS_VERSION = 1;
/** Delay until unrequested changes are noticed. */
const POLL_INTERVAL_MS = 2_000;

type Severity = DaemonEvent["severity"];
const SEVERITY = Object.fromEntries(
  daemonEventSchemas.DAEMON_EVENTS.map(({ properties }) => [
    properties.event.const,
    properties.severity.const,
  ]),
) as Readonly<Record<DaemonEventKind, Severity>>;

type KeptEvent = NewDaemonEvent & { readonly wall_time: string };

/** The used part of the driver. */
export type Watched = Pick<DriverControl, "status" | "followEvents">;

export interface DaemonLogOptions {
  readonly stateDirectory: string;
  readonly driver: Watched;
  readonly logger: Logger;
  readonly version: string;
  readonly capacity?: number;
  readonly pollIntervalMs?: number;
}

export class DaemonLog implements EventLogControl {
  readonly #options: DaemonLogOptions;
  readonly #queue: KeptEventQueue<KeptEvent>;
  readonly #factsPath: string;
  readonly #life = randomUUID();
  readonly #followed = new Map<string, AbortController>();
  /** By snapshot: the number of its next own event. */
  readonly #cursors: Record<string, number>;
  #facts: Facts;
  #factsText = "";
  #polling: Promise<void> | undefined;
  #isWanted = false;
  #isClosed = false;
  #isEnding = false;
  #timer: NodeJS.Timeout | undefined;

  /** Create it in the daemon that owns the state directory. */
  constructor(options: DaemonLogOptions) {
    const { stateDirectory, logger, capacity } = options;
    this.#options = options;
    mkdirSync(stateDirectory, { recursive: true, mode: 0o700 });
    this.#queue = new KeptEventQueue(join(stateDirectory, StateFile.events), {
      ...(capacity === undefined ? {} : { capacity }),
      onFailure: (error) =>
        logger.warn(
          { err: error },
          "events will not survive this daemon: their file cannot be written",
        ),
    });
    this.#factsPath = join(stateDirectory, StateFile.eventsFacts);
    const { facts, cursors } = readKept(this.#factsPath);
    this.#facts = facts;
    this.#cursors = { ...cursors };
  }

  /**
   * Logs the start, and changes since the last daemon; then polls. Failures are only logged, because
   * nothing depends on events.
   */
  async begin(): Promise<void> {
    const { pollIntervalMs = POLL_INTERVAL_MS, logger } = this.#options;
    try {
      await this.#reportStart();
    } catch (error) {
      if (!this.#isClosed)
        logger.warn({ err: error }, "the start of the daemon could not be recorded as an event");
    }
    await this.#pollNow();
    if (this.#isClosed) return;
    this.#timer = setInterval(() => this.poll(), pollIntervalMs);
    this.#timer.unref();
  }

  async #reportStart(): Promise<void> {
    const { driver, version } = this.#options;
    const { daemon } = await driver.status();
    const { handover, pid } = daemon;
    const isAfterCrash = handover === null && this.#facts.life !== "";
    const cause = handover !== null ? "handover" : isAfterCrash ? "crash" : "start";
    this.push({
      event: "daemon_started",
      pid,
      version,
      cause,
      pause_ms: handover?.pause_ms ?? null,
    });
  }

  push(event: NewDaemonEvent): void {
    if (this.#isClosed) return;
    this.#queue.push({ ...event, wall_time: new Date().toISOString() });
  }

  poll(): void {
    void this.#pollNow();
  }

  /** One poll at a time; a request meanwhile makes another one follow. */
  #pollNow(): Promise<void> {
    this.#isWanted = true;
    this.#polling ??= this.#pollWhileWanted().finally(() => {
      this.#polling = undefined;
    });
    return this.#polling;
  }

  async #pollWhileWanted(): Promise<void> {
    while (this.#isWanted && !this.#isClosed) {
      this.#isWanted = false;
      try {
        this.#compare(await this.#options.driver.status());
      } catch (error) {
        if (!this.#isClosed) this.#options.logger.warn({ err: error }, "cannot poll for events");
      }
    }
  }

  #compare(status: StatusResponse): void {
    if (this.#isClosed) return;
    const now = factsOf(status, this.#life);
    this.#report(this.#isEnding ? this.#withPersistent(now) : now);
    for (const { id } of status.snapshots) this.#follow(id);
  }

  #report(now: Facts): void {
    const nowMs = bootClockMs();
    let known = now;
    try {
      const news = differences(this.#facts, now, nowMs);
      known = reportedFacts(this.#facts, now, nowMs);
      for (const event of news) this.push(event);
    } catch (error) {
      // Otherwise each poll from now on fails in the same way.
      this.#options.logger.warn({ err: error }, "facts cannot be compared: events are lost");
      this.push({ event: "lost", count: null });
    }
    this.#keep(known);
  }

  /** After the events: if the daemon is killed in between, events are repeated rather than lost. */
  #keep(facts: Facts): void {
    this.#facts = facts;
    for (const id of Object.keys(this.#cursors)) {
      if (!Object.hasOwn(facts.snapshots, id)) delete this.#cursors[id];
    }
    const text = JSON.stringify({ version: FACTS_VERSION, facts, cursors: this.#cursors });
    if (text === this.#factsText) return;
    try {
      replaceFile(this.#factsPath, text);
      this.#factsText = text;
    } catch (error) {
      this.#options.logger.debug({ err: error }, "the next daemon compares with older facts");
    }
  }

  /** A snapshot's own events are copied as they come, from where the last daemon stopped. */
  #follow(id: string): void {
    if (this.#followed.has(id)) return;
    const ending = new AbortController();
    this.#followed.set(id, ending);
    void this.#copyEvents(id, ending.signal).finally(() => this.#followed.delete(id));
  }

  async #copyEvents(id: string, signal: AbortSignal): Promise<void> {
    try {
      const from = this.#cursors[id] ?? 0;
      for await (const event of await this.#options.driver.followEvents(id, from, signal)) {
        const news = daemonEventOf(id, event);
        if (news !== undefined) this.push(news);
        this.#cursors[id] = event.sequence + 1;
        this.#keep(this.#facts);
      }
    } catch {
      // The snapshot was destroyed meanwhile.
    }
  }

  async *read(options: EventLogOptions, signal: AbortSignal): AsyncGenerator<DaemonEvent> {
    const { oldestSequence, nextSequence } = this.#queue;
    const { since, log = this.#queue.log, follow = false } = options;
    const isOther = log !== this.#queue.log || (since ?? 0) >= nextSequence;
    const from = isOther || since === undefined ? oldestSequence : since + 1;
    if (isOther) yield this.#lost(oldestSequence, null);
    const until = this.#queue.nextSequence;
    if (!follow && from >= until) return;
    for await (const delivery of this.#queue.subscribe({ fromSequence: from, signal })) {
      const { record, missed } = delivery;
      if (missed > 0) yield this.#lost(record.sequence, missed);
      yield this.#event(delivery);
      if (!follow && record.sequence + 1 >= until) return;
    }
  }

  #event({ record }: Delivery<KeptEvent>): DaemonEvent {
    const { sequence, event } = record;
    const { wall_time, ...its } = event;
    const stamp = { sequence, log: this.#queue.log, wall_time, severity: SEVERITY[event.event] };
    return { ...stamp, ...its } as DaemonEvent;
  }

  /** Stands for the events before this one that are no longer kept. */
  #lost(sequence: number, count: number | null): DaemonEvent {
    return {
      sequence: Math.max(0, sequence - 1),
      log: this.#queue.log,
      wall_time: new Date().toISOString(),
      severity: "warning",
      event: "lost",
      count,
    };
  }

  /** Everything ends from now on: persistent snapshots that go are suspended, for the next daemon. */
  ending(): void {
    this.#isEnding = true;
  }

  #withPersistent(now: Facts): Facts {
    const persistent = Object.entries(this.#facts.snapshots).filter(([, one]) => one.isPersistent);
    return { ...now, snapshots: { ...Object.fromEntries(persistent), ...now.snapshots } };
  }

  /**
   * The daemon ends on purpose, and so do readers.
   * @param keeps devices are left to the next daemon; otherwise everything has ended except persistent snapshots, and
   *   the next daemon reports whether these are resumed or lost
   */
  close(keeps: boolean): void {
    clearInterval(this.#timer);
    if (!keeps) this.#report(this.#withPersistent({ ...NO_FACTS, life: this.#facts.life }));
    this.push({ event: "daemon_ended", pid: process.pid, keeps });
    // If nothing is left, the next start does not follow a crash.
    if (!keeps) this.#keep(this.#withPersistent(NO_FACTS));
    this.#isClosed = true;
    for (const ending of this.#followed.values()) ending.abort();
    this.#queue.close();
  }
}

/** Like the constructor, but returns no log if it fails: the daemon runs without events. */
export function openDaemonLog(options: DaemonLogOptions): DaemonLog | undefined {
  try {
    return new DaemonLog(options);
  } catch (error) {
    options.logger.warn({ err: error }, "this daemon has no event log");
    return undefined;
  }
}

interface Kept {
  readonly version: number;
  readonly facts: Facts;
  readonly cursors: Readonly<Record<string, number>>;
}

/** What the last daemon knew; nothing if there was none, or it had another version. */
function readKept(path: string): Pick<Kept, "facts" | "cursors"> {
  const nothing = { facts: NO_FACTS, cursors: {} };
  try {
    const { version, facts, cursors } = JSON.parse(readFileSync(path, "utf8")) as Kept;
    const isWhole =
      version === FACTS_VERSION &&
      areFacts(facts) &&
      Object.values(cursors).every(Number.isSafeInteger);
    return isWhole ? { facts, cursors } : nothing;
  } catch {
    return nothing;
  }
}
