/**
 * Where the daemon's log goes: standard error, a line of JSON for each thing that is said. Where that is systemd's journal,
 * each line has its priority in front, as sd-daemon(3) describes: the journal takes it off, and `journalctl -p err` finds
 * what went wrong. The JSON behind it is the same as elsewhere.
 */
import { fstatSync } from "node:fs";
import { errnoNameOf } from "@blksnap/errors";
import { unblockedWriter, type WriteNow } from "@blksnap/uring";
import { type DestinationStream, type Logger, pino } from "pino";

const STDERR = 2;
/** sd-daemon(3), by pino's level from which on it holds, the highest first. */
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
/** What pino calls, with the level of the line at hand where metadata are asked for. */
interface LeveledStream extends DestinationStream {
  readonly [pino.symbols.needsMetadataGsym]: true;
  lastLevel: number;
}

/** For a line, where the pipe or the socket is full. */
const FULL_WAIT_MS = 100;
/** For all lines that must not be lost, until the reader takes something: then they are dropped as others. */
const URGENT_WAIT_MS = 1000;
const FULL_PAUSE_MS = 10;
const WARN = 40;
const NEVER = new Int32Array(new SharedArrayBuffer(4));

function pauseThread(): void {
  Atomics.wait(NEVER, 0, 0, FULL_PAUSE_MS);
}

/**
 * Writes each line at once, so that nothing is lost when the process ends. What cannot be written, as where the disk of the
 * log is full, is dropped, and counted in the next line that can: no daemon ends with its log, nor do its devices wait.
 * Nor do they wait for a reader that has stopped reading, such as journald with its disk hung. What a daemon ends with is
 * urgent: the reader is given time for it, also where it has stood still.
 */
export class LineWriter {
  readonly #write: WriteNow;
  readonly #withPriorities: boolean;
  #lost = 0;
  #why = "";
  /** A line has no end. */
  #isTorn = false;
  #urgentWaitMs = URGENT_WAIT_MS;
  readonly #pause: () => void;

  constructor(fd: number, withPriorities: boolean, pause: () => void = pauseThread) {
    this.#pause = pause;
    this.#write = unblockedWriter(fd);
    this.#withPriorities = withPriorities;
  }

  write(line: string, level: number, isUrgent: boolean = level >= FATAL): void {
    if (!this.#tellLost(isUrgent) || !this.#put(line, level, isUrgent)) this.#lost++;
  }

  /** Nothing comes any more: the number of lines that are missing is told now, or never. */
  end(): void {
    this.#tellLost(true);
  }

  /** Answers whether none is untold. */
  #tellLost(isUrgent: boolean): boolean {
    if (this.#lost > 0 && !this.#put(this.#lossLine(), WARN, isUrgent)) return false;
    this.#lost = 0;
    return true;
  }

  #lossLine(): string {
    const msg = `lines of this log are missing: ${this.#why}`;
    return `${JSON.stringify({ level: WARN, time: Date.now(), lines: this.#lost, msg })}\n`;
  }

  /** Answers whether all of it is written. */
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

  /** Once the reader has stood still, only what is urgent waits for it. */
  #mayPause(isUrgent: boolean): boolean {
    if (!isUrgent) return this.#lost === 0;
    if (this.#urgentWaitMs <= 0) return false;
    this.#urgentWaitMs -= FULL_PAUSE_MS;
    return true;
  }
}

/** Whether what is written to `fd` goes to the journal: $JOURNAL_STREAM of systemd.exec(5). */
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

/** One for all: what follows a torn line must know that it is torn. */
let stderrLines: LineWriter | undefined;

function stderrWriter(): LineWriter {
  if (stderrLines === undefined) {
    stderrLines = new LineWriter(STDERR, isJournal());
    process.once("exit", endLog);
  }
  return stderrLines;
}

/** Before the process ends in a way that tells nobody. */
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

/** For people who start blksnapd: a line, as programs say it, of something that failed. */
export function complain(text: string): void {
  stderrWriter().write(`blksnapd: ${text}\n`, ERROR, true);
}
