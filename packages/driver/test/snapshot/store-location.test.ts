import { mkdtempSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { identityOfStats } from "@blksnap/linux-block";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import type { StoreRecord } from "../../dist/records/records.js";
import { acrossBoots, identified, located } from "../../dist/snapshot/store-location.js";

const test = suite("store location");
let folder: string;
let file: string;
let record: StoreRecord;

test.before.each(() => {
  folder = mkdtempSync(join(tmpdir(), "blksnap-stores-"));
  file = join(folder, "store");
  writeFileSync(file, "");
  record = identified({ path: file }, { identity: identityOfStats(statSync(file)) });
});
test.after.each(() => rmSync(folder, { recursive: true }));

const refused = (wanted: StoreRecord) =>
  located(wanted).then(({ path }) => assert.unreachable(path) as never, String);

test("a file is found under its name, or under another one in its folder", async () => {
  assert.is((await located(record)).path, file);
  renameSync(file, `${file}-now`);
  assert.is((await located(record)).path, `${file}-now`);
  writeFileSync(file, "");
  assert.is((await located(record)).path, `${file}-now`);
  const { identity = "" } = record;
  const inFolder = await located({ path: folder, fileName: "store", identity });
  assert.equal([inFolder.path, inFolder.fileName], [folder, "store-now"]);
});

test("another file with its name is not the store", async () => {
  renameSync(file, `${file}-away`);
  writeFileSync(file, "");
  rmSync(`${file}-away`);
  assert.match(await refused(record), /the store .*store is another file now/);
});

test("after a reboot a file is identified by its inode, whatever its file system's number", async () => {
  const kept = acrossBoots(record);
  assert.match(kept.identity ?? "", /^file::\d+$/);
  assert.is((await located(kept)).path, file);
  renameSync(file, `${file}-away`);
  writeFileSync(file, "");
  assert.match(await refused(kept), "is another file now");
});

test("after a reboot a disk is identified by its earlier name, not by its number", async () => {
  const marks = {
    diskSequence: "3",
    dmUuid: null,
    wwid: "naa.none-has-this",
    backingFile: null,
    startSector: null,
    sectors: "8",
  };
  const kept = acrossBoots({ path: "/dev/sdz", identity: "block:8:400", marks });
  assert.is(kept.identity, undefined);
  assert.is(kept.marks?.diskSequence, null);
  assert.match(await refused(kept), "the store /dev/sdz: it is gone, or another disk now");
});

test("records of older daemons, and memory, are identified by name", async () => {
  assert.equal(await located({ path: "/none" }), { path: "/none" });
  const memory = { path: "memory:", fileName: "a" };
  assert.is(identified(memory, { identity: "" }), memory);
  assert.is(await located(memory), memory);
});

test.run();
