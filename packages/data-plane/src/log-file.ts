/** The log of a journal in an open file: where the next commit goes, and whether there is room for it. */
import { SECTOR_BYTES } from "@blksnap/journal";
import type { Reactor } from "@blksnap/uring";

/** A log in an open file. */
export interface LogPlace {
  readonly fd: number;
  readonly logOffsetBytes: number;
  readonly logBytes: number;
  readonly usedSectors: number;
}

/** An open journal, to be appended to. */
export interface JournalSetup extends LogPlace {
  /** 16 bytes, as numbers. */
  readonly id: readonly number[];
  readonly nextSequence: number;
  readonly nextCommit: number;
}

/** A place that commits are written to. */
export class LogFile {
  readonly fd: number;
  readonly index: number;
  readonly logOffsetBytes: number;
  logSectors: number;
  usedSectors: number;
  /** What it had when it became the log: what a compaction would make again. */
  baseSectors: number;

  constructor(reactor: Reactor, place: LogPlace) {
    this.fd = place.fd;
    this.index = reactor.addFile(place.fd);
    this.logOffsetBytes = place.logOffsetBytes;
    this.logSectors = place.logBytes / SECTOR_BYTES;
    this.usedSectors = place.usedSectors;
    this.baseSectors = place.usedSectors;
  }
}

export function isHalfFull({ usedSectors, logSectors }: LogFile): boolean {
  return usedSectors * 2 > logSectors;
}

export function hasRoom({ usedSectors, logSectors }: LogFile, sectors: number): boolean {
  return usedSectors + sectors <= logSectors;
}
