/**
 * Where the daemon's log goes: standard error, a line of JSON for each thing that is said. Where that is systemd's journal,
 * each line has its priority in front, as sd-daemon(3) describes: the journal takes it off, and `journalctl -p err` finds
 * what went wrong. The JSON behind it is the same as elsewhere.
 */
import { constants, fstatSync, openSync, writeSync } from "node:fs";
import { errnoNameOf } from "@blksnap/errors";
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

type Environment = Readonly<Record<string, string | undefined>>;
/** What pino calls, with the level of the line at hand where metadata are asked for. */
interface LeveledStream extends DestinationStream {
  readonly [pino.symbols.needsMetadataGsym]: true;
  lastLevel: number;
}

/** A pipe that does not block, and is full: its reader has so many pauses of so long. */
const FULL_PAUSES = 10;
const FULL_PAUSE_MS = 10;
const WARN = 40;
const NEVER = new Int32Array(new SharedArrayBuffer(4));

/**
 * Writes each line at once, so that nothing is lost when the process ends. What cannot be written, as where the disk of the
 * log is full, is dropped, and counted in the next line that can: no daemon ends with its log, nor do its devices wait.
 */
class LineWriter {
  readonly #fd: number;
  readonly #withPriorities: boolean;
  #lost = 0;
  #why = "";
  /** A line has no end. */
  #isTorn = false;

  constructor(fd: number, withPriorities: boolean) {
    this.#fd = fd;
    this.#withPriorities = withPriorities;
  }

  write(line: string, level: number): void {
    const isTold = this.#lost === 0 || this.#put(this.#lossLine(), WARN);
    if (isTold) this.#lost = 0;
    if (!isTold || !this.#put(line, level)) this.#lost++;
  }

  #lossLine(): string {
    const msg = `lines of this log are missing: ${this.#why}`;
    return `${JSON.stringify({ level: WARN, time: Date.now(), lines: this.#lost, msg })}\n`;
  }

  /** Answers whether all of it is written. */
  #put(line: string, level: number): boolean {
    const begin = this.#isTorn ? "\n" : "";
    const bytes = Buffer.from(`${begin}${this.#withPriorities ? prefixOf(level) : ""}${line}`);
    let at = 0;
    for (let pauses = 0; at < bytes.length; ) {
      try {
        at += writeSync(this.#fd, bytes, at);
      } catch (error) {
        this.#why = errnoNameOf(error);
        // Once it has stood still, nothing waits for it any more.
        if (this.#why === "EAGAIN" && this.#lost === 0 && pauses++ < FULL_PAUSES) {
          Atomics.wait(NEVER, 0, 0, FULL_PAUSE_MS);
          continue;
        }
        this.#isTorn ||= at > 0;
        return false;
      }
    }
    this.#isTorn = false;
    return true;
  }
}

/**
 * A descriptor of the same pipe that does not block, whatever those want who have the other: a reader that has stopped
 * reading stops no thread of ours. A socket, as the journal's, cannot be opened again; what cannot be is written to as it is.
 */
function unblocked(fd: number): number {
  try {
    if (!fstatSync(fd).isFIFO()) return fd;
    return openSync(`/proc/self/fd/${fd}`, constants.O_WRONLY | constants.O_NONBLOCK);
  } catch {
    return fd;
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

let complaints: LineWriter | undefined;

export function logTo(fd: number, level: string, withPriorities: boolean): Logger {
  const writer = new LineWriter(unblocked(fd), withPriorities);
  const stream: LeveledStream = {
    [pino.symbols.needsMetadataGsym]: true,
    lastLevel: 0,
    write: (line) => writer.write(line, stream.lastLevel),
  };
  return pino({ level, base: null }, stream);
}

export function stderrLog(level: string): Logger {
  return logTo(STDERR, level, isJournal());
}

/** For people who start blksnapd: a line, as programs say it, of something that failed. */
export function complain(text: string): void {
  complaints ??= new LineWriter(unblocked(STDERR), isJournal());
  complaints.write(`blksnapd: ${text}\n`, ERROR);
}
