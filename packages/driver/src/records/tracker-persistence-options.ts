/** Options and ports of a tracker's persistence. */
import type { AdoptReply, MirrorReply } from "@blksnap/data-plane";
import type { Continuity } from "@blksnap/linux-block";
import type { TrackerPersistence } from "./tracker-persistence.js";

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

/** What is on record about an original that is to be attached. */
export type Prepared =
  /** Nothing is on record, and nothing is wanted. */
  | { readonly kind: "unrecorded" }
  /** Nothing is on record: a record begins. */
  | { readonly kind: "new"; readonly persistence: TrackerPersistence }
  /** A map that no write has bypassed, and log2 of its chunks. */
  | {
      readonly kind: "continues";
      readonly persistence: TrackerPersistence;
      readonly chunkShift: number;
    }
  /** A map that cannot continue: a new generation begins. */
  | {
      readonly kind: "broken";
      readonly persistence: TrackerPersistence;
      readonly broken: Broken;
    };

/** Why a map cannot continue. */
type Broken = Extract<Continuity, { verdict: "new_generation" }>;
