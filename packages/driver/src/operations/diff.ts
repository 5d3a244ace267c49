/**
 * Changes between two takes. A map may have millions of blocks, and a scattered one as many ranges: it is copied and
 * reported in turns of the main thread, which grants slots in between.
 *
 * ```
 *   frozen map ──slices──▶ copy ──▶ counted, then ranges in batches, as fast as the caller reads them
 *       └── switched meanwhile by a take: copied again
 * ```
 */
import type { DiffAnswer, DiffResponse } from "@blksnap/api";
import { ControlError } from "@blksnap/api";
import { TURN_UNITS, Turns } from "@blksnap/data-plane";
import type { CbtInfo, CbtMap } from "@blksnap/engine";
import { uuidText } from "@blksnap/linux-block";
import { assertSpliced } from "../tracker/splice-watch.js";
import type { Tracker } from "../tracker/tracker.js";

type Ranges = DiffResponse["ranges"];

export interface Changes extends Omit<DiffResponse, "device" | "front" | "since" | "ranges"> {
  /** In batches: sorted, cut at the device's end; adjacent ranges differ in kind. */
  readonly ranges: AsyncIterable<Ranges>;
}

const ATTEMPTS_MAX = 8;
/** Ranges per batch. */
const BATCH_RANGES = 4096;

/** The map of one take, by block. */
interface Table {
  readonly info: CbtInfo;
  readonly numbers: Uint8Array;
  /** 1: the last change was a discard of the whole block. */
  readonly discarded: Uint8Array;
}

/**
 * Changes of a tracker's device: see changesSince().
 * @throws ControlError SPLICE_LOST: writes may have bypassed the map
 */
export async function diffSince(tracker: Tracker, since: number): Promise<DiffAnswer> {
  const { cbt } = tracker;
  try {
    const changes = await changesSince(cbt, since, tracker.device);
    assertSpliced(tracker);
    return { device: tracker.device, front: tracker.front.path, since, ...changes };
  } catch (error) {
    // It has grown meanwhile.
    if (cbt === tracker.cbt || tracker.isGone) throw error;
    return diffSince(tracker, since);
  }
}

/**
 * Changes after snapshot number `since`, up to the last take.
 * @throws ControlError CBT_NUMBER_UNKNOWN, CBT_BUSY, NOT_ATTACHED; EngineError CBT_CORRUPTED
 */
export async function changesSince(cbt: CbtMap, since: number, device: string): Promise<Changes> {
  const turns = new Turns();
  const table = await copyTable(cbt, since, device, turns);
  const { info } = table;
  let changedBlocks = 0;
  let changedBytes = 0;
  for await (const batch of rangesOf(table, since, turns)) {
    for (const { length_bytes } of batch) {
      changedBytes += length_bytes;
      changedBlocks += Math.ceil(length_bytes / info.blockBytes);
    }
  }
  return {
    generation_id: uuidText(info.generation),
    changes_number: info.changesNumber,
    block_bytes: info.blockBytes,
    capacity_bytes: info.capacityBytes,
    changed_blocks: changedBlocks,
    changed_bytes: changedBytes,
    ranges: rangesOf(table, since, new Turns()),
  };
}

/** Copies the table of a single take. */
async function copyTable(cbt: CbtMap, since: number, device: string, turns: Turns): Promise<Table> {
  for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
    const info = cbt.info();
    if (since > info.changesNumber) {
      throw new ControlError(
        "CBT_NUMBER_UNKNOWN",
        `${device} has no snapshot number ${since}; the last is ${info.changesNumber}`,
      );
    }
    const numbers = new Uint8Array(info.blockCount);
    const discarded = new Uint8Array(info.blockCount);
    let at = 0;
    let isSame = true;
    while (isSame && at < info.blockCount) {
      const end = Math.min(at + TURN_UNITS, info.blockCount);
      cbt.readFrozen(numbers.subarray(at, end), at, end - at, discarded.subarray(at, end));
      isSame = isOf(cbt.info(), info);
      await turns.spend(end - at);
      if (!cbt.isMapped) throw new ControlError("NOT_ATTACHED", `${device} was detached meanwhile`);
      at = end;
    }
    if (isSame) return { info, numbers, discarded };
  }
  throw new ControlError(
    "CBT_BUSY",
    `snapshots of ${device} are taken faster than its map is read`,
  );
}

function isOf(now: CbtInfo, { changesNumber, generation }: CbtInfo): boolean {
  return now.changesNumber === changesNumber && Buffer.from(now.generation).equals(generation);
}

async function* rangesOf(
  { info, numbers, discarded }: Table,
  since: number,
  turns: Turns,
): AsyncGenerator<Ranges> {
  let batch: Ranges = [];
  let block = 0;
  while (block < numbers.length) {
    const first = block;
    const isChanged = numbers[first] > since;
    const kind = discarded[first];
    // A long run is scanned in turns, too.
    const isSame = (other: number): boolean =>
      numbers[other] > since === isChanged && (!isChanged || discarded[other] === kind);
    while (block < numbers.length && isSame(block)) {
      block++;
      if (block % TURN_UNITS === 0) await turns.spend(TURN_UNITS);
    }
    if (!isChanged) continue;
    const offsetBytes = first * info.blockBytes;
    const endBytes = Math.min(block * info.blockBytes, info.capacityBytes);
    batch.push({
      offset_bytes: offsetBytes,
      length_bytes: endBytes - offsetBytes,
      kind: kind === 1 ? "discarded" : "changed",
    });
    if (batch.length < BATCH_RANGES) continue;
    yield batch;
    // Making and serialising a range costs more than looking at a block.
    await turns.spend(TURN_UNITS);
    batch = [];
  }
  if (batch.length > 0) yield batch;
}
