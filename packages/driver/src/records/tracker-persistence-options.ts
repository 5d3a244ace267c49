/** What a tracker's persistence is asked with. */
import type { AdoptReply, MirrorReply } from "@blksnap/data-plane";

/** How the reactor is asked; see messages.ts. */
export interface JournalRequests {
  mirror(location: { fd: number; logOffsetBytes: number; logBytes: number }): Promise<MirrorReply>;
  adopt(): Promise<AdoptReply>;
}

/** What is looked up. */
export interface PrepareOptions {
  /** Make a record where there is none. */
  readonly persistent: boolean;
  /** The record that the device must be that of. */
  readonly uuid?: string;
  /** See JudgeOptions. */
  readonly trustReboots?: boolean;
}

/** How tracking ends. */
export interface EndOptions {
  /** The system goes down, and no program is left that could write. */
  readonly closing?: boolean;
  /** The front had gone before: what the device looks like now is not how it was left. */
  readonly isLate?: boolean;
}
