import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { compareMarks, devicesLike, nodeOf, readMarks } from "@blksnap/linux-block";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { DeviceTree } from "./device-tree.js";

const test = suite("device marks");
let tree: DeviceTree;
let folder: string;

test.before.each(() => {
  tree = new DeviceTree();
  ({ folder } = tree);
});
test.after.each(() => tree.delete());

function device(...words: Parameters<DeviceTree["add"]>): void {
  tree.add(...words);
}

test("another device under the same number is recognised by its sequence or its name", () => {
  device("7:0", "loop0", { diskseq: "4" });
  const before = readMarks("7:0", folder)!;
  assert.is(compareMarks(before, readMarks("7:0", folder)!), "same");
  device("7:0", "loop0", { diskseq: "5" });
  assert.is(compareMarks(before, readMarks("7:0", folder)!), "other");
  device("252:0", "dm-0", { diskseq: "6", "dm/uuid": "LVM-a" });
  const volume = readMarks("252:0", folder)!;
  device("252:0", "dm-0", { diskseq: "7", "dm/uuid": "LVM-a" });
  assert.is(compareMarks(volume, readMarks("252:0", folder)!), "again");
  device("252:0", "dm-0", { diskseq: "7", "dm/uuid": "LVM-b" });
  assert.is(compareMarks(volume, readMarks("252:0", folder)!), "other");
});

test("a loop device that was set up again is identified by its file; a renamed file makes no other device", () => {
  device("7:0", "loop0", { diskseq: "4", "loop/backing_file": "/a" });
  const before = readMarks("7:0", folder)!;
  device("7:0", "loop0", { diskseq: "4", "loop/backing_file": "/b" });
  assert.is(compareMarks(before, readMarks("7:0", folder)!), "same");
  device("7:0", "loop0", { diskseq: "5", "loop/backing_file": "/b" });
  assert.is(compareMarks(before, readMarks("7:0", folder)!), "other");
  device("7:1", "loop1", { diskseq: "6", "loop/backing_file": "/a" });
  assert.is(compareMarks(before, readMarks("7:1", folder)!), "again");
  assert.equal(devicesLike(before, folder), ["7:1"]);
});

test("a partition is identified by its disk and its place there", () => {
  device("8:0", "sda", { diskseq: "1", "device/wwid": "naa.5" });
  device("8:1", "sda/sda1", { partition: "1", start: "2048" });
  device("8:2", "sda/sda2", { partition: "2", start: "4096" });
  const first = readMarks("8:1", folder)!;
  assert.equal(first, {
    diskSequence: "1",
    dmUuid: null,
    wwid: "naa.5",
    backingFile: null,
    startSector: "2048",
    loopOffsetBytes: null,
    sectors: "2048",
  });
  assert.is(compareMarks(first, readMarks("8:2", folder)!), "other");
  assert.is(compareMarks(first, readMarks("8:0", folder)!), "other");
  assert.equal(devicesLike(first, folder), ["8:1"]);
});

test("a node counts only if it is the device's", () => {
  device("1:0", "ram0", { uevent: "MAJOR=1\nMINOR=0\nDEVNAME=ram0" });
  writeFileSync(join(folder, "ram0"), "");
  assert.is(nodeOf("1:0", folder, folder), undefined);
});

test.run();
