/**
 * Where the daemon's log goes: standard error, a line of JSON for each thing that is said. Where that is systemd's journal,
 * each line has its priority in front, as sd-daemon(3) describes: the journal takes it off, and `journalctl -p err` finds
 * what went wrong. The JSON behind it is the same as elsewhere.
 */
import { fstatSync } from "node:fs";
import { type DestinationStream, destination, type Logger, pino } from "pino";

const STDERR = 2;
/** sd-daemon(3), by pino's level from which on it holds, the highest first. */
const PRIORITIES: readonly (readonly [level: number, prefix: string])[] = [
  [60, "<2>"],
  [50, "<3>"],
  [40, "<4>"],
  [30, "<6>"],
];
const DEBUG = "<7>";
const ERROR = "<3>";

type Environment = Readonly<Record<string, string | undefined>>;
/** What pino calls, with the level of the line at hand where metadata are asked for. */
interface LeveledStream extends DestinationStream {
  readonly [pino.symbols.needsMetadataGsym]: true;
  lastLevel: number;
  flushSync(): void;
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

/** @param fd written to at once, so that nothing is lost when the process ends */
export function logTo(fd: number, level: string, withPriorities: boolean): Logger {
  const out = destination({ dest: fd, sync: true });
  if (!withPriorities) return pino({ level, base: null }, out);
  const stream: LeveledStream = {
    [pino.symbols.needsMetadataGsym]: true,
    lastLevel: 0,
    write: (line) => void out.write(`${prefixOf(stream.lastLevel)}${line}`),
    flushSync: () => out.flushSync(),
  };
  return pino({ level, base: null }, stream);
}

export function stderrLog(level: string): Logger {
  return logTo(STDERR, level, isJournal());
}

/** For people who start blksnapd: a line, as programs say it, of something that failed. */
export function complain(text: string): void {
  console.error(`${isJournal() ? ERROR : ""}blksnapd: ${text}`);
}
