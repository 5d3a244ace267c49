import type { PointServer, PointServerOptions } from "./point-server.js";

/**
 * Serves a point in time over NBD, read-only, without restoring it. Loads what it needs on demand, because nothing
 * else here uses io_uring.
 * @throws BackupError TARGET_EXISTS, TARGET_FAILED, BACKUP_DAMAGED, INTERNAL
 */
export async function servePoint(options: PointServerOptions): Promise<PointServer> {
  return await (await import("./point-server.js")).PointServer.start(options);
}
