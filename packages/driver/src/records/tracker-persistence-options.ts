/** Options and ports of a tracker's persistence. */
import type { AdoptReply, MirrorReply } from "@blksnap/data-plane";

/** Requests to the reactor; see messages.ts. */
export interface JournalRequests {
  mirror(location: { fd: number; logOffsetBytes: number; logBytes: number }): Promise<MirrorReply>;
  adopt(): Promise<AdoptReply>;
}

/** What to look up. */
export interface PrepareOptions {
  /** Make a record if there is none. */
  readonly persistent: boolean;
  /** The device must be the one of this record. */
  readonly uuid?: string;
  /** See JudgeOptions. */
  readonly trustReboots?: boolean;
}

/** How tracking ends. */
export interface EndOptions {
  /** The system goes down, and no program is left that could write. */
  readonly closing?: boolean;
  /** The front ended earlier: the device's present state is not how it was left. */
  readonly isLate?: boolean;
}
