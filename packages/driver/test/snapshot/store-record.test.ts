import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ETIMEDOUT } from "@blksnap/errors";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { storeRecord } from "../../dist/snapshot/store-record.js";

const SNAPSHOT = "cc10a0c0-0d4c-4f5c-8f3e-0f6e0f0f0001";

test("a file in a folder and one in memory have a name; a file of the user's, and nothing, have none", async () => {
  const folder = mkdtempSync(join(tmpdir(), "blksnap-store-"));
  const file = join(folder, "file");
  writeFileSync(file, "");
  const recordOf = (path: string) => storeRecord(path, SNAPSHOT, 1);
  const { fileName } = await recordOf("memory:");
  assert.type(fileName, "string");
  assert.equal(await recordOf(folder), { path: folder, fileName });
  assert.equal(await recordOf(file), { path: file });
  assert.equal(await recordOf(`${file}-none`), { path: `${file}-none` });
  rmSync(folder, { recursive: true });
});

test("a path that does not answer is refused: it could be a folder", async () => {
  const failure = await storeRecord("/far", SNAPSHOT, 0, async () => -ETIMEDOUT).catch(
    (error: { code?: string }) => error,
  );
  assert.is((failure as { code?: string }).code, "STORE_TIMEOUT");
});

test.run();
