/** The log of a journal in an open file: where the next commit goes, and whether it has room. */
import { type JournalWriter, SECTOR_BYTES } from "@blksnap/journal";
import type { Reactor } from "@blksnap/uring";

/** How many times its initial length a log grows before it is compacted. */
const WORTH_RENEWAL = 4;

/** A log in an open file. */
export interface LogLocation {
  readonly fd: number;
  readonly logOffsetBytes: number;
  readonly logBytes: number;
  readonly usedSectors: number;
}

/** An open journal, to be appended to. */
export interface JournalSetup extends LogLocation {
  /** 16 bytes, as numbers. */
  readonly id: readonly number[];
  readonly nextSequence: number;
  readonly nextCommit: number;
}

/** Puts a checkpoint into the log of a mirror, part by part. */
export interface Compaction {
  /** More parts are to come. */
  readonly isPending: boolean;
  /** A commit is about to be sealed: puts a part into its prefix, or nothing. */
  prepend(writer: JournalWriter): void;
}

/** Which log has to become longer, or that the journal has to be renewed. */
export type LogNeed = "renewal" | "log" | "mirror";

/** A file that commits are written to. */
export class LogFile {
  readonly fd: number;
  readonly index: number;
  readonly logOffsetBytes: number;
  logSectors: number;
  usedSectors: number;
  /** Sectors in use when it became the log: a compaction would write about as many. */
  baseSectors: number;

  constructor(reactor: Reactor, location: LogLocation) {
    this.fd = location.fd;
    this.index = reactor.addFile(location.fd);
    this.logOffsetBytes = location.logOffsetBytes;
    this.logSectors = location.logBytes / SECTOR_BYTES;
    this.usedSectors = location.usedSectors;
    this.baseSectors = location.usedSectors;
  }
}

export function isHalfFull({ usedSectors, logSectors }: LogFile): boolean {
  return usedSectors * 2 > logSectors;
}

export function hasRoom({ usedSectors, logSectors }: LogFile, sectors: number): boolean {
  return usedSectors + sectors <= logSectors;
}

/** A compaction writes the initial content again: the log must have grown a lot since. */
export function isWorthRenewal({ baseSectors, logSectors }: LogFile): boolean {
  return baseSectors * WORTH_RENEWAL <= logSectors;
}
