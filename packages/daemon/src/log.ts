/**
 * The daemon's log: standard error, one line of JSON per entry. If that is systemd's journal, each line begins with
 * its priority, as sd-daemon(3) describes: the journal strips it, and `journalctl -p err` finds errors. The JSON
 * behind it is the same as elsewhere.
 */
import { fstatSync } from "node:fs";
import { errnoNameOf } from "@blksnap/errors";
import { unblockedWriter, type WriteNow } from "@blksnap/uring";
import { type DestinationStream, type Logger, pino } from "pino";

const STDERR = 2;
/** Priorities of sd-daemon(3), by the pino level at which each begins, the highest first. */
const PRIORITIES: readonly (readonly [level: number, prefix: string])[] = [
  [60, "<2>"],
  [50, "<3>"],
  [40, "<4>"],
  [30, "<6>"],
];
const DEBUG = "<7>";
const ERROR = 50;
const FATAL = 60;

type Environment = Readonly<Record<string, string | undefined>>;
/** The stream for pino, with the level of the current line if metadata are requested. */
interface LeveledStream extends DestinationStream {
  readonly [pino.symbols.needsMetadataGsym]: true;
  lastLevel: number;
}

/** Wait for one line while the pipe or the socket is full. */
const FULL_WAIT_MS = 100;
/** Wait for all urgent lines, until the reader takes something; after it they are dropped like others. */
const URGENT_WAIT_MS = 1000;
const FULL_PAUSE_MS = 10;
const WARN = 40;
const NEVER = new Int32Array(new SharedArrayBuffer(4));

function pauseThread(): void {
  Atomics.wait(NEVER, 0, 0, FULL_PAUSE_MS);
}

/**
 * Writes each line at once, so that nothing is lost when the process ends. Lines that cannot be written, as with a
 * full disk, are dropped and counted in the next line that can: neither the daemon nor its devices depend on the log.
 * Nor do they wait for a reader that has stopped, such as journald with a hung disk. Urgent lines, such as the last
 * ones, wait for a bounded time even if the reader has stopped.
 */
export class LineWriter {
  readonly #write: WriteNow;
  readonly #withPriorities: boolean;
  #lost = 0;
  #why = "";
  /** The last line is torn: it has no end. */
  #isTorn = false;
  #urgentWaitMs = URGENT_WAIT_MS;
  readonly #pause: () => void;

  constructor(fd: number, withPriorities: boolean, pause: () => void = pauseThread) {
    this.#pause = pause;
    this.#write = unblockedWriter(fd);
    this.#withPriorities = withPriorities;
  }

  write(line: string, level: number, isUrgent: boolean = level >= FATAL): void {
    if (!this.#reportLost(isUrgent) || !this.#put(line, level, isUrgent)) this.#lost++;
  }

  /** No more lines follow: report the number of missing ones now. */
  end(): void {
    this.#reportLost(true);
  }

  /** Returns whether none is unreported. */
  #reportLost(isUrgent: boolean): boolean {
    if (this.#lost > 0 && !this.#put(this.#lossLine(), WARN, isUrgent)) return false;
    this.#lost = 0;
    return true;
  }

  #lossLine(): string {
    const msg = `lines of this log are missing: ${this.#why}`;
    return `${JSON.stringify({ level: WARN, time: Date.now(), lines: this.#lost, msg })}\n`;
  }

  /** Returns whether all of it was written. */
  #put(line: string, level: number, isUrgent: boolean): boolean {
    const begin = this.#isTorn ? "\n" : "";
    const bytes = Buffer.from(`${begin}${this.#withPriorities ? prefixOf(level) : ""}${line}`);
    let at = 0;
    for (let pauses = 0; at < bytes.length; ) {
      try {
        at += this.#write(bytes.subarray(at));
        this.#urgentWaitMs = URGENT_WAIT_MS;
      } catch (error) {
        this.#why = errnoNameOf(error);
        if (
          this.#why === "EAGAIN" &&
          pauses++ < FULL_WAIT_MS / FULL_PAUSE_MS &&
          this.#mayPause(isUrgent)
        ) {
          this.#pause();
          continue;
        }
        this.#isTorn ||= at > 0;
        return false;
      }
    }
    this.#isTorn = false;
    return true;
  }

  /** Once the reader has stopped, only urgent lines wait for it. */
  #mayPause(isUrgent: boolean): boolean {
    if (!isUrgent) return this.#lost === 0;
    if (this.#urgentWaitMs <= 0) return false;
    this.#urgentWaitMs -= FULL_PAUSE_MS;
    return true;
  }
}

/** Whether `fd` is connected to the journal: $JOURNAL_STREAM of systemd.exec(5). */
export function isJournal(fd: number = STDERR, environment: Environment = process.env): boolean {
  const stream = environment["JOURNAL_STREAM"];
  if (!stream) return false;
  try {
    const { dev, ino } = fstatSync(fd, { bigint: true });
    return stream === `${dev}:${ino}`;
  } catch {
    return false;
  }
}

function prefixOf(level: number): string {
  return PRIORITIES.find(([from]) => level >= from)?.[1] ?? DEBUG;
}

/** Shared, because the writer of the line after a torn one must know that it is torn. */
let stderrLines: LineWriter | undefined;

function stderrWriter(): LineWriter {
  if (stderrLines === undefined) {
    stderrLines = new LineWriter(STDERR, isJournal());
    process.once("exit", endLog);
  }
  return stderrLines;
}

/** For a fatal error, before the process ends. */
export function endLog(): void {
  stderrLines?.end();
}

export function logTo(fd: number, level: string, withPriorities: boolean): Logger {
  return loggerOf(new LineWriter(fd, withPriorities), level);
}

function loggerOf(writer: LineWriter, level: string): Logger {
  const stream: LeveledStream = {
    [pino.symbols.needsMetadataGsym]: true,
    lastLevel: 0,
    write: (line) => writer.write(line, stream.lastLevel),
  };
  return pino({ level, base: null }, stream);
}

export function stderrLog(level: string): Logger {
  return loggerOf(stderrWriter(), level);
}

/** Prints a failure to the user who starts blksnapd, in one line, as programs do. */
export function complain(text: string): void {
  stderrWriter().write(`blksnapd: ${text}\n`, ERROR, true);
}
