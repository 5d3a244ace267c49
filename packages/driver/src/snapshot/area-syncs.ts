/** Open files of the stores for one area, by which its journal syncs them. */
import type { FileHandle } from "node:fs/promises";
import type { JournalSetup } from "@blksnap/data-plane";
import { DiffStorageError, type Store } from "@blksnap/diff-storage";
import { bounded } from "@blksnap/uring";
import type { AreaJournalFile } from "../records/area-journal-file.js";
import { openToSync } from "../system/open-again.js";
import { STORE_OPEN_TIMEOUT_MS } from "../time-limits.js";

/** What a reactor needs for the journal of an area. */
export interface AreaSyncs {
  readonly journal: JournalSetup;
  readonly syncFds: readonly number[];
}

/**
 * Opens the stores again while a reactor learns of an area; its ring keeps them open from then on.
 * @param tell receives undefined if the area has no journal
 * @throws DiffStorageError STORE_TIMEOUT; the error of open(2); as `request` does
 */
export async function withAreaSyncs<Answer>(
  stores: readonly Pick<Store, "fd" | "path">[],
  journal: AreaJournalFile | undefined,
  request: (syncs?: AreaSyncs) => Promise<Answer>,
): Promise<Answer> {
  if (journal === undefined) return request();
  const opening = opened(stores);
  const files = await bounded(opening, STORE_OPEN_TIMEOUT_MS, () => {
    opening.then(close).catch(() => undefined);
    const paths = stores.map(({ path }) => path).join(", ");
    return new DiffStorageError("STORE_TIMEOUT", `no answer from ${paths}`);
  });
  try {
    const syncFds = stores.map(({ fd }, index) => files[index]?.fd ?? fd);
    return await request({ journal: journal.setup, syncFds });
  } finally {
    await close(files);
  }
}

type OwnFiles = (FileHandle | undefined)[];

async function opened(stores: readonly Pick<Store, "fd">[]): Promise<OwnFiles> {
  const files: OwnFiles = [];
  try {
    for (const { fd } of stores) files.push(await openToSync(fd));
    return files;
  } catch (error) {
    await close(files);
    throw error;
  }
}

async function close(files: OwnFiles): Promise<void> {
  for (const file of files) await file?.close();
}
