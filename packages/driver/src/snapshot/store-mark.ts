/**
 * A mark in a store whose name is not ours to change: a block device, or a user's file. It has a slot of its own as
 * long as the snapshot is persistent. A boot from the medium that does not find it counts the snapshot as lost, instead
 * of showing images that miss what was not recorded.
 *
 * ```
 *   take: a slot, the mark in it ─▶ on record with the take       given up: on record here ─▶ overwritten
 * ```
 */
import { randomUUID } from "node:crypto";
import { ControlError } from "@blksnap/api";
import { type DiffStorage, type Store, slotIndex, slotStore } from "@blksnap/diff-storage";
import { bounded } from "@blksnap/uring";
import type { DriverContext } from "../context.js";
import { noAnswer } from "../records/persistent-directory.js";
import type { SnapshotRecord, StoreMark } from "../records/records.js";
import { openAgain } from "../system/open-again.js";
import { STORE_MARK_TIMEOUT_MS } from "../time-limits.js";

/** A size that any store accepts as one write. */
const MARK_BYTES = 4096;

type MarkContext = Pick<DriverContext, "logger"> & {
  readonly storeSystem: Pick<DriverContext["storeSystem"], "writeSynced">;
};

/** A snapshot. */
interface Marked {
  readonly slotBytes: number;
  readonly storage: { readonly stores: readonly Pick<Store, "fd">[] } & Pick<DiffStorage, "track">;
  storeMark?: StoreMark | undefined;
}

interface Markable extends Marked {
  readonly id: string;
  readonly storage: Marked["storage"] & Pick<DiffStorage, "allocateExtentWhenReady">;
}

/**
 * Makes a mark for a take; the next save() records it. Without room for it, or if the store does not accept it, the
 * snapshot has none. The mark is as durable as the copies in the store.
 */
export async function markStore(context: MarkContext, snapshot: Markable): Promise<void> {
  const { storage } = snapshot;
  if (context.storeSystem.writeSynced === undefined) return;
  try {
    if (snapshot.storeMark === undefined) {
      const extent = await storage.allocateExtentWhenReady(1);
      if (extent === "full") throw new Error("there is no room for it");
      snapshot.storeMark = { slot: extent.firstSlot, value: null };
    }
    const { slot, value: known } = snapshot.storeMark;
    // The mark of a failed take is still there, and on record.
    if (known !== null) return;
    const value = randomUUID();
    await write(context, snapshot, slot, textOf(value));
    snapshot.storeMark = { slot, value };
  } catch (err) {
    const text =
      "its store has no mark: if the disk of its journals fails before the loss is recorded, " +
      "a power cut would bring it back with wrong images";
    context.logger.warn({ snapshot: snapshot.id, err }, text);
  }
}

/**
 * Resolves when the mark is gone from the medium.
 * @throws Error: there is none, or the store does not answer or fails
 */
export async function removeMark(context: MarkContext, snapshot: Marked): Promise<void> {
  const { storeMark: mark } = snapshot;
  if (mark === undefined || mark.value === null) throw new Error("none of its stores has a mark");
  await write(context, snapshot, mark.slot, "");
  snapshot.storeMark = { slot: mark.slot, value: null };
}

/**
 * Checks the mark of a snapshot that an earlier daemon has left.
 * @throws ControlError STORE_FAILED: the mark is gone; the error of open(2) or read(2)
 */
export async function assertMarked(
  { persistent, storeMark, slotBytes, stores: records }: SnapshotRecord,
  stores: readonly Pick<Store, "fd" | "path">[],
): Promise<void> {
  if (persistent !== true || storeMark === undefined || storeMark.value === null) return;
  const { slot, value } = storeMark;
  const store = stores[slotStore(slot)];
  if (store === undefined || slotBytes === undefined)
    throw new Error(`slot ${slot} is in no store`);
  const file = await openAgain(store.fd);
  try {
    const wanted = Buffer.from(textOf(value));
    const found = Buffer.alloc(wanted.length);
    await file.read(found, 0, found.length, slotIndex(slot) * slotBytes);
    if (found.equals(wanted)) return;
  } finally {
    await file.close();
  }
  const { path } = records[slotStore(slot)] ?? store;
  const what = `the store ${path} no longer confirms that the snapshot can be used`;
  const hint =
    "Its journals could not be written before the machine went down, or other programs wrote there";
  throw new ControlError("STORE_FAILED", what, { hint });
}

function textOf(value: string): string {
  return `blksnap persistent snapshot ${value}\n`;
}

async function write(
  { storeSystem }: MarkContext,
  { storage, slotBytes }: Marked,
  slot: number,
  text: string,
): Promise<void> {
  const { fd } = storage.stores[slotStore(slot)] as Pick<Store, "fd">;
  const bytes = Buffer.alloc(MARK_BYTES);
  bytes.write(text);
  const writing = storeSystem.writeSynced?.(fd, slotIndex(slot) * slotBytes, bytes);
  await bounded(storage.track(Promise.resolve(writing)), STORE_MARK_TIMEOUT_MS, noAnswer);
}
