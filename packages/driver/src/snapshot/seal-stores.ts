/** Records the state of a snapshot's stores when nothing writes to them any more; see Seal. */
import { fsync } from "node:fs";
import { promisify } from "node:util";
import type { Store } from "@blksnap/diff-storage";
import { type Seal, sealNow } from "@blksnap/linux-block";
import { bounded } from "@blksnap/uring";
import type { Logger } from "pino";
import { STORE_SEAL_PATIENCE_MS } from "../time-limits.js";
import type { Snapshot } from "./snapshot.js";

const fsyncFd = promisify(fsync);

type Sealing = Pick<Snapshot, "storage" | "members" | "hungStores" | "persistence">;

/**
 * At the daemon's end, when no device of the snapshot is written any more: the next save() records the state of its
 * stores. For a store that may still change, or does not answer, it records nothing.
 */
export async function sealStores(snapshot: Sealing, logger: Pick<Logger, "warn">): Promise<void> {
  const { storage, members, hungStores, persistence } = snapshot;
  const isLate = [...members.values()].some(({ lateAreas }) => lateAreas.size > 0);
  const isAtRest = !isLate && (await storage.rest(STORE_SEAL_PATIENCE_MS));
  const sealing = storage.stores.map(async (store, index) => {
    try {
      if (!isAtRest || hungStores.owesAnswers(index)) throw noAnswer();
      return await bounded(sealed(store), STORE_SEAL_PATIENCE_MS, noAnswer);
    } catch (error) {
      const text = `${store.path}: writes by other programs before the next start will not be detected`;
      logger.warn({ err: error }, `${text}: ${(error as Error).message}`);
      return null;
    }
  });
  persistence.storeSeals = await Promise.all(sealing);
}

function noAnswer(): Error {
  return new Error("it does not answer");
}

/** Syncs the store first: a power cut must not undo what the seal contains, such as the times of a file. */
async function sealed({ fd, openedBytes }: Store): Promise<Seal> {
  await fsyncFd(fd);
  return sealNow(fd, openedBytes);
}
