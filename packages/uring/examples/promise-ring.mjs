/**
 * Allocates a file of 64 MiB and syncs it while a timer runs: nothing here blocks the event loop or occupies a thread
 * of libuv's pool.
 */
import { closeSync, openSync, statSync, unlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { errnoName } from "@blksnap/errors";
import { PromiseRing, prepareFallocate, prepareFsync } from "@blksnap/uring";

const path = join(tmpdir(), `promise-ring-${process.pid}`);
const fd = openSync(path, "w");
const ring = new PromiseRing();

async function run(what, prepare) {
  const result = await ring.submit(prepare);
  if (result < 0) throw new Error(`${what}: ${errnoName(result)}`);
  console.log(`${what}: done`);
}

try {
  const size = 64 << 20;
  await run("fallocate", (target, low, high) =>
    prepareFallocate(target, fd, 0, 0, 0, size, 0, low, high, 0),
  );
  await run("fsync", (target, low, high) => prepareFsync(target, fd, 0, low, high, 0));
  console.log(`${statSync(path).size} bytes`);
} finally {
  ring.close();
  closeSync(fd);
  unlinkSync(path);
}
