/** The first record of a snapshot. */
import { randomUUID } from "node:crypto";
import type { OverflowPolicy, SnapshotCreateProgress } from "@blksnap/api";
import type { DiffStorageOptions } from "@blksnap/diff-storage";
import type { SnapshotRecord } from "../records/records.js";
import { storeRecord } from "./store-record.js";

export interface SnapshotOptions {
  readonly stores: readonly string[];
  readonly limitBytes: number;
  /** Smallest alignment of the I/O to the stores: the members' logical block size. */
  readonly alignmentBytes: number;
  /** Size of a slot: the largest chunk of a member. */
  readonly slotBytes: number;
  readonly onOverflow: OverflowPolicy;
  /** It survives a reboot. */
  readonly persistent: boolean;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: SnapshotCreateProgress) => void) | undefined;
  readonly readOnlyImages: boolean;
  readonly releasableImages: boolean;
}

export type OpenStorageOptions = Pick<SnapshotOptions, "signal" | "onProgress"> &
  Pick<DiffStorageOptions, "onOpened">;

export async function newRecord({
  signal: _signal,
  onProgress: _onProgress,
  stores,
  ...options
}: SnapshotOptions): Promise<SnapshotRecord> {
  const id = randomUUID();
  return {
    ...options,
    id,
    state: "creating",
    createdAt: new Date().toISOString(),
    takenAt: null,
    stallUs: null,
    stores: await Promise.all(stores.map((path, index) => storeRecord(path, id, index))),
    members: [],
    events: [],
    nextEvent: 1,
  };
}
