import fs, { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { NbdFrontend } from "../../dist/frontend/nbd-frontend.js";

const test = suite("sync of an export's original");
const { fsync } = fs;
let folder: string;
let path: string;
let hereCount: number;

test.before.each(() => {
  folder = mkdtempSync(join(tmpdir(), "blksnap-sync-"));
  path = join(folder, "original");
  writeFileSync(path, "x");
  hereCount = 0;
  const counted = (fd: number, done: fs.NoParamCallback): void => {
    hereCount++;
    fsync(fd, done);
  };
  fs.fsync = Object.assign(counted, { __promisify__: fsync.__promisify__ });
  syncBuiltinESMExports();
});

test.after.each(() => {
  fs.fsync = fsync;
  syncBuiltinESMExports();
  rmSync(folder, { recursive: true });
});

async function syncOf(fd: number): Promise<number> {
  const served = {
    params: {},
    onNumber: () => undefined,
    startQueue: async () => undefined,
    exportName: "front/original",
  };
  const front = await new NbdFrontend(() => null).start(served as never);
  return front.sync(fd);
}

test("no thread of this process blocks on the original", async () => {
  const fd = openSync(path, "r+");
  assert.is(await syncOf(fd), 0);
  assert.is(hereCount, 0);
  closeSync(fd);
});

test("an original that cannot be opened a second time is still synced", async () => {
  // An invalid descriptor looks to the helper like one that it may not open.
  const status = await syncOf(1_000_000);
  assert.ok(status < 0);
  assert.is(hereCount, 1);
});

test.run();
