import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { commandStoreSystem, DiffStorage } from "@blksnap/diff-storage";
import { test } from "uvu";
import * as assert from "uvu/assert";
import type { SnapshotRecord } from "../../dist/records/records.js";
import { sealStores } from "../../dist/snapshot/seal-stores.js";

const SLOT_BYTES = 2 ** 16;

let folder: string;
test.before.each(() => {
  folder = mkdtempSync(join(tmpdir(), "blksnap-seals-"));
});
test.after.each(() => rmSync(folder, { recursive: true }));

/** The seals of two stores, and the log. */
async function sealed(hung: readonly number[], lateAreas: readonly string[], hangs = false) {
  const paths = ["one", "two"].map((name) => join(folder, name));
  for (const path of paths) writeFileSync(path, Buffer.alloc(2 * SLOT_BYTES));
  const storage = await DiffStorage.open({
    system: commandStoreSystem,
    slotBytes: SLOT_BYTES,
    portionBytes: 2 * SLOT_BYTES,
    stores: paths.map((path) => ({ path })),
  });
  if (hangs) storage.rest = async () => false;
  const persistence: Pick<SnapshotRecord, "storeSeals"> = {};
  const warned: string[] = [];
  const snapshot = {
    storage,
    members: new Map([[1, { lateAreas: new Set(lateAreas) }]]),
    hungStores: { owesAnswers: (store: number) => hung.includes(store) },
    persistence,
  };
  const warn = (_: unknown, text?: string) => void warned.push(text ?? "");
  await sealStores(snapshot as never, { warn });
  await storage.close();
  return { sizes: persistence.storeSeals?.map((seal) => seal?.sizeBytes), warned, paths };
}

test("each store has a seal", async () => {
  const { sizes, warned } = await sealed([], []);
  assert.equal(sizes, [2 * SLOT_BYTES, 2 * SLOT_BYTES]);
  assert.equal(warned, []);
});

test("a store that may still change has no seal, and the log says so", async () => {
  const { sizes, warned, paths } = await sealed([0], []);
  assert.equal(sizes, [undefined, 2 * SLOT_BYTES]);
  assert.is(warned.length, 1);
  assert.ok(warned[0]?.startsWith(`${paths[0]}: writes by other programs`));
  assert.equal((await sealed([], ["an area"])).sizes, [undefined, undefined]);
  assert.equal((await sealed([], [], true)).sizes, [undefined, undefined]);
});

test.run();
