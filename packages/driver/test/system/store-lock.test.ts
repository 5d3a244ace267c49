/** A store that a dead daemon's requests still hold is waited for, whatever its kind. */
import { closeSync, mkdtempSync, openSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { constants, tmpdir } from "node:os";
import { join } from "node:path";
import { type DiffStorageError, openStore } from "@blksnap/diff-storage";
import { errnoName, errnoNameOf } from "@blksnap/errors";
import { PromiseRing, tryLockFile } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { ringStoreSystem } from "../../dist/system/store-system.js";
import { openStoresFenced } from "../../dist/tracker/fence.js";

const MIB = 2 ** 20;

test("a locked store file is opened as soon as its lock is released", async () => {
  const folder = mkdtempSync(join(tmpdir(), "blksnap-lock-"));
  const path = join(folder, "store");
  writeFileSync(path, "");
  truncateSync(path, 4 * MIB);
  const held = openSync(path, "r+");
  assert.ok(tryLockFile(held));
  const ring = new PromiseRing();
  const attempts: string[] = [];
  try {
    const system = ringStoreSystem(ring);
    const store = await openStoresFenced(async () => {
      if (attempts.length === 3) closeSync(held);
      try {
        return await openStore(path, { system, slotBytes: MIB, limitBytes: 4 * MIB });
      } catch (error) {
        attempts.push((error as DiffStorageError).code);
        throw error;
      }
    });
    assert.equal(attempts, ["STORE_BUSY", "STORE_BUSY", "STORE_BUSY"]);
    await store.close(false);
  } finally {
    ring.close();
    rmSync(folder, { recursive: true });
  }
});

test("all packages use the same name for a number", () => {
  for (const [name, number] of Object.entries(constants.errno)) {
    assert.is(errnoNameOf({ errno: -number }), errnoName(number), name);
    assert.is(errnoNameOf({ code: name }), errnoName(number), name);
  }
});

test.run();
