/** Targets that fail, or that complete other requests, in ways that tests select. */
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { RequestQueue, Target, TargetModule, TargetSpec } from "@blksnap/ublk";
import { UblkIoFlag, UblkOp } from "@blksnap/ublk";
import type { Reactor } from "@blksnap/uring";
import { MIB, PLAIN_PARAMS } from "./support.js";

const EIO = 5;

interface OddOptions {
  /**
   * - `open-throws`: it cannot be opened.
   * - `thread-ends`: the first request ends the thread.
   * - `answers-others`: see AnswersOthers.
   * - `plain`: it answers each request at once.
   * - `kept`: see Kept.
   */
  readonly kind: "open-throws" | "thread-ends" | "answers-others" | "plain" | "kept";
  /** Of `kept`. */
  readonly folder?: string;
  /** A file that is created on close, with the number of discarded and zeroed bytes. */
  readonly closedPath?: string;
  /** Default 1 MiB. */
  readonly capacityBytes?: number;
  /** A file that is created on close, with a line for each request: its operation, and "durable" for FUA. */
  readonly requestsPath?: string;
  /** Default false. */
  readonly fua?: boolean;
  /** Default true. */
  readonly volatileCache?: boolean;
  /** Flushes fail. */
  readonly failsFlushes?: boolean;
  /** Most bytes that it discards or zeroes at a time; default 0: it can do neither. */
  readonly rangeMaxBytes?: number;
}

export function oddTarget(options: OddOptions): TargetSpec {
  return { module: new URL(import.meta.url), options };
}

const NAMES: readonly [string, number][] = Object.entries(UblkOp);

function lineOf(queue: RequestQueue, tag: number): string {
  const name = NAMES.find(([, op]) => op === queue.op(tag))?.[0] ?? "?";
  return (queue.flags(tag) & UblkIoFlag.FUA) === 0 ? name : `${name} durable`;
}

function answer(queue: RequestQueue, tag: number): void {
  const isTransfer = queue.op(tag) === UblkOp.READ || queue.op(tag) === UblkOp.WRITE;
  queue.complete(tag, isTransfer ? queue.sectors(tag) * 512 : 0);
}

/**
 * Keeps two flushes and the first piece of a read; a third flush then waits for a slot. As the piece is answered
 * the read waits behind it. The second piece answers a flush, so that the third begins; that one fails the
 * second piece, whose connection still waits in the line.
 */
class AnswersOthers implements Target {
  readonly #queue: RequestQueue;
  readonly #reactor: Reactor;
  readonly #flushes: number[] = [];
  #flushCount = 0;
  #first = -1;
  #second = -1;

  constructor(queue: RequestQueue, reactor: Reactor) {
    this.#queue = queue;
    this.#reactor = reactor;
  }

  queueIo(tag: number): void {
    const queue = this.#queue;
    if (queue.op(tag) === UblkOp.FLUSH) this.#flush(tag);
    else if (queue.startSectorLow(tag) === 0) this.#first = tag;
    else {
      this.#second = tag;
      answer(queue, this.#flushes.shift() as number);
    }
    if (this.#first < 0 || this.#flushes.length < 2) return;
    // Not at once: the third flush must wait by then.
    const first = this.#first;
    this.#first = -1;
    this.#reactor.setTimer(0, () => answer(queue, first));
  }

  #flush(tag: number): void {
    this.#flushCount++;
    if (this.#flushCount <= 2) {
      this.#flushes.push(tag);
      return;
    }
    const second = this.#second;
    this.#second = -1;
    if (second < 0) {
      answer(this.#queue, tag);
      return;
    }
    this.#queue.complete(second, -EIO);
    // Not at once: their connection would wait again.
    this.#flushes.push(tag);
    this.#reactor.setTimer(0, () => {
      for (const kept of this.#flushes.splice(0)) answer(this.#queue, kept);
    });
  }

  close(): void {
    // It holds nothing.
  }
}

const LOOK_MS = 5;

/** Keeps all requests until the file `release` exists in the folder; writes their number to `have`. */
class Kept implements Target {
  readonly #queue: RequestQueue;
  readonly #reactor: Reactor;
  readonly #folder: string;
  readonly #kept: number[] = [];
  #have = 0;
  #isLooking = false;

  constructor(queue: RequestQueue, reactor: Reactor, folder: string) {
    this.#queue = queue;
    this.#reactor = reactor;
    this.#folder = folder;
  }

  queueIo(tag: number): void {
    this.#kept.push(tag);
    writeFileSync(join(this.#folder, "have"), String(++this.#have));
    if (!this.#isLooking) this.#look();
  }

  #look(): void {
    this.#isLooking = true;
    this.#reactor.setTimer(LOOK_MS, () => {
      this.#isLooking = false;
      if (!existsSync(join(this.#folder, "release"))) this.#look();
      else for (const tag of this.#kept.splice(0)) answer(this.#queue, tag);
    });
  }

  close(): void {
    // It holds nothing.
  }
}

export const target: TargetModule = {
  describe: (options) => ({
    ...PLAIN_PARAMS,
    capacityBytes: (options as OddOptions).capacityBytes ?? MIB,
    volatileCache: (options as OddOptions).volatileCache ?? true,
    fua: (options as OddOptions).fua ?? false,
    discardMaxBytes: (options as OddOptions).rangeMaxBytes ?? 0,
    writeZeroesMaxBytes: (options as OddOptions).rangeMaxBytes ?? 0,
  }),
  open(options, queue, reactor) {
    const { kind, closedPath, folder, requestsPath, failsFlushes } = options as OddOptions;
    if (kind === "kept" && folder !== undefined) return new Kept(queue, reactor, folder);
    if (kind === "open-throws") throw new Error("this target cannot be opened");
    if (kind === "answers-others") return new AnswersOthers(queue, reactor);
    let discarded = 0;
    let zeroed = 0;
    const lines: string[] = [];
    return {
      queueIo: (tag) => {
        // In a worker it ends the thread.
        if (kind === "thread-ends") process.exit(7);
        if (queue.op(tag) === UblkOp.DISCARD) discarded += queue.sectors(tag) * 512;
        if (queue.op(tag) === UblkOp.WRITE_ZEROES) zeroed += queue.sectors(tag) * 512;
        lines.push(lineOf(queue, tag));
        if (failsFlushes === true && queue.op(tag) === UblkOp.FLUSH) queue.complete(tag, -EIO);
        else answer(queue, tag);
      },
      close: () => {
        if (closedPath !== undefined) writeFileSync(closedPath, `${discarded} ${zeroed}`);
        if (requestsPath !== undefined) writeFileSync(requestsPath, lines.join("\n"));
      },
    };
  },
};
