/** Syncs files to their media, concurrently and in bounded time. */
import { fdatasync } from "node:fs";
import { promisify } from "node:util";
import { ETIMEDOUT } from "@blksnap/errors";
import { bounded } from "@blksnap/uring";
import { openToSync } from "../system/open-again.js";

/** As fdatasync(2). */
type Sync = (fd: number) => Promise<void>;

export interface SyncedFile {
  readonly path: string;
  readonly fd: number;
}

const syncSame: Sync = promisify(fdatasync);
/** Who flushes the same device through its front must be told of what could not be written, too. */
const syncFile: Sync = async (fd) => {
  const again = await openToSync(fd);
  try {
    await (again?.datasync() ?? syncSame(fd));
  } finally {
    await again?.close();
  }
};
/** Each keeps a thread, of the few that all calls on files share: one that hangs is not asked a second time. */
const unanswered = new WeakSet<SyncedFile>();

async function syncOne(file: SyncedFile, sync: Sync): Promise<void> {
  unanswered.add(file);
  try {
    await sync(file.fd);
  } finally {
    unanswered.delete(file);
  }
}

/**
 * One that does not answer may be synced later: its descriptor can be closed meanwhile. Until then it fails at once.
 * @throws the error of open(2) or fdatasync(2); Error ETIMEDOUT
 */
export async function syncAll(
  files: readonly SyncedFile[],
  timeoutMs: number,
  sync: Sync = syncFile,
): Promise<void> {
  const late = (why: string): Error => {
    const hung = files.filter((file) => unanswered.has(file)).map(({ path }) => path);
    const message = `${hung.join(", ")} ${why}`;
    return Object.assign(new Error(message), { code: "ETIMEDOUT", errno: -ETIMEDOUT });
  };
  if (files.some((file) => unanswered.has(file))) {
    throw late("has not answered an earlier flush yet");
  }
  const synced = Promise.all(files.map((file) => syncOne(file, sync)));
  await bounded(synced, timeoutMs, () => late(`is not synced in ${timeoutMs} ms`));
}
