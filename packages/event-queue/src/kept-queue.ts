/**
 * A queue whose events survive the process: a ring in memory, and a file from which the next process restores it.
 *
 * ```
 *   {"log":"5f0c…"}                    the log that the numbers belong to
 *   {"sequence":1,"timeNs":…,"event":…}
 *   …                                  appended, one write each; rewritten at twice the ring's length
 * ```
 *
 * A number identifies one event of one log. If a reader may have seen an event that is not in the file, the log gets
 * another name, so that a reader that continues learns that it missed events instead of skipping them unnoticed.
 */
import { randomBytes } from "node:crypto";
import {
  closeSync,
  openSync,
  readFileSync,
  renameSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { checkInteger } from "./errors.js";
import type { Follower } from "./follower.js";
import { EventQueue, type SubscribeOptions } from "./queue.js";
import type { EventRecord } from "./ring.js";

/** Settings of a kept queue. */
export interface KeptQueueOptions {
  /** Events remembered, 1 to 2^20; the file has up to twice as many. Default: 4096. */
  readonly capacity?: number;
  /** Called once when the file cannot be written any more: events continue in memory. */
  readonly onFailure?: (error: unknown) => void;
}

const DEFAULT_KEPT = 4096;
const LOG_NAME_BYTES = 4;
/** Largest first number of a ring. */
const SEQUENCE_MAX = 2 ** 52;

interface Kept<E> {
  readonly log: string;
  readonly records: readonly EventRecord<E>[];
  /** Lines in the file. */
  readonly lines: number;
  readonly isWhole: boolean;
}

export class KeptEventQueue<E> {
  readonly #path: string;
  readonly #capacity: number;
  readonly #queue: EventQueue<E>;
  readonly #onFailure: (error: unknown) => void;
  #log: string;
  #fd: number | undefined;
  #lines: number;
  #hasFailed = false;

  /**
   * Continues with the events in the file; unreadable ones are left out.
   * @param path on a file system that answers at once, such as tmpfs: the calling thread writes it
   */
  constructor(path: string, options: KeptQueueOptions = {}) {
    const { capacity = DEFAULT_KEPT, onFailure = () => undefined } = options;
    checkInteger("capacity", capacity, 1, 2 ** 20);
    this.#path = path;
    this.#capacity = capacity;
    this.#onFailure = onFailure;
    const { log, records, lines, isWhole } = readKept<E>(path);
    this.#log = isWhole ? log : newName();
    this.#lines = lines;
    let restoredNs: number | undefined;
    this.#queue = new EventQueue<E>({
      capacity,
      firstSequence: records[0]?.sequence ?? 1,
      nowNs: () => restoredNs ?? Number(process.hrtime.bigint()),
    });
    for (const { timeNs, event } of records) {
      restoredNs = timeNs;
      this.#queue.push(event);
    }
    restoredNs = undefined;
    // At once, so that the process's open files do not change with its first event.
    if (isWhole) this.#append();
    else this.#rewrite();
  }

  /** Name of the log: the numbers of another log mean other events. */
  get log(): string {
    return this.#log;
  }

  get nextSequence(): number {
    return this.#queue.nextSequence;
  }

  get oldestSequence(): number {
    return this.#queue.oldestSequence;
  }

  /** Appends an event, also to the file, and wakes its readers. @throws EventQueueError QUEUE_CLOSED */
  push(event: E): EventRecord<E> {
    // A woken reader reads only after the caller returns: by then the name of the log is right.
    const record = this.#queue.push(event);
    this.#keep(record);
    return record;
  }

  /** As EventQueue's. */
  subscribe(options: SubscribeOptions = {}): Follower<E> {
    return this.#queue.subscribe(options);
  }

  /** Ends all readers; the file stays for the next process. */
  close(): void {
    this.#queue.close();
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
  }

  #keep(record: EventRecord<E>): void {
    if (this.#fd === undefined || this.#lines >= 2 * this.#capacity) {
      this.#rewrite();
      return;
    }
    try {
      const line = Buffer.from(`${JSON.stringify(record)}\n`);
      if (writeSync(this.#fd, line) !== line.length) throw new Error("it is full");
      this.#lines++;
    } catch (error) {
      this.#fail(error);
    }
  }

  #append(): void {
    try {
      this.#fd = openSync(this.#path, "a");
    } catch (error) {
      this.#fail(error);
    }
  }

  /** By rename: the next process finds the old file or the new one. Nothing fails after that. */
  #rewrite(): void {
    const draft = `${this.#path}.new`;
    const records = this.#queue.held();
    let fd: number | undefined;
    try {
      const lines = records.map((record) => `${JSON.stringify(record)}\n`);
      writeFileSync(draft, [`${JSON.stringify({ log: this.#log })}\n`, ...lines].join(""), {
        mode: 0o600,
      });
      fd = openSync(draft, "a");
      renameSync(draft, this.#path);
    } catch (error) {
      if (fd !== undefined) closeSync(fd);
      removeIfPossible(draft);
      this.#fail(error);
      return;
    }
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = fd;
    this.#lines = records.length;
    this.#hasFailed = false;
  }

  /**
   * The next event tries to rewrite the file. Until then no event of the new name is in a file, so one new name is
   * enough.
   */
  #fail(error: unknown): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
    if (this.#hasFailed) return;
    this.#hasFailed = true;
    this.#log = newName();
    this.#onFailure(error);
  }
}

/** The file takes room on a file system that may be full. */
function removeIfPossible(path: string): void {
  try {
    unlinkSync(path);
  } catch {
    // It did not exist.
  }
}

function newName(): string {
  return randomBytes(LOG_NAME_BYTES).toString("hex");
}

/** The readable part of a file: the last events with consecutive numbers. */
function readKept<E>(path: string): Kept<E> {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch {
    return { log: "", records: [], lines: 0, isWhole: false };
  }
  const [head, ...rest] = text.split("\n");
  const name = parsedOr<{ log?: unknown }>(head)?.log;
  const log = typeof name === "string" && /^[0-9a-f]{8}$/.test(name) ? name : undefined;
  let isWhole = log !== undefined && rest.pop() === "";
  let records: EventRecord<E>[] = [];
  for (const line of rest) {
    const record = parsedOr<EventRecord<E>>(line);
    if (!isRecord(record)) {
      isWhole = false;
      continue;
    }
    const last = records.at(-1);
    if (last !== undefined && record.sequence !== last.sequence + 1) {
      isWhole = false;
      records = [];
    }
    records.push(record);
  }
  return { log: log ?? "", records, lines: records.length, isWhole };
}

function isRecord<E>(value: EventRecord<E> | undefined): value is EventRecord<E> {
  return (
    value !== undefined &&
    value !== null &&
    Number.isSafeInteger(value.sequence) &&
    value.sequence >= 1 &&
    value.sequence <= SEQUENCE_MAX &&
    Number.isFinite(value.timeNs) &&
    typeof value.event === "object" &&
    value.event !== null
  );
}

function parsedOr<Value>(text: string | undefined): Value | undefined {
  try {
    return JSON.parse(text ?? "") as Value;
  } catch {
    return undefined;
  }
}
