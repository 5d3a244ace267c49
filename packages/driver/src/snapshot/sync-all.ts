/** Has files on their media, all at once and in bounded time. */
import { fdatasync } from "node:fs";
import { promisify } from "node:util";
import { ETIMEDOUT } from "@blksnap/errors";
import { bounded } from "@blksnap/uring";

/** As fdatasync(2). */
type Sync = (fd: number) => Promise<void>;

const syncFile: Sync = promisify(fdatasync);

/**
 * One that does not answer may be synced later: its descriptor can be closed meanwhile.
 * @throws the error of fdatasync(2); Error ETIMEDOUT
 */
export async function syncAll(
  fds: readonly number[],
  timeoutMs: number,
  sync: Sync = syncFile,
): Promise<void> {
  const late = (): Error =>
    Object.assign(new Error(`not synced in ${timeoutMs} ms`), {
      code: "ETIMEDOUT",
      errno: -ETIMEDOUT,
    });
  await bounded(Promise.all(fds.map((fd) => sync(fd))), timeoutMs, late);
}
