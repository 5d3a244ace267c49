import { linkSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import {
  boundedLookup,
  compareMarks,
  findAcrossBoots,
  findAgain,
  identityAt,
  readMarks,
  type WantedDevice,
} from "@blksnap/linux-block";
import { statInHelper } from "@blksnap/uring";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { DeviceTree } from "./device-tree.js";

const test = suite("find again");
const lookUp = boundedLookup(statInHelper);
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

function remove(number: string): void {
  rmSync(join(folder, "dev/block", number));
}

/** The record of a device at attach. */
function recorded(number: string, name = "/dev/gone") {
  const marks = readMarks(number, folder);
  return { device: name, identity: `block:${number}`, ...(marks && { marks }) };
}

async function refused(wanted: WantedDevice): Promise<string> {
  return findAgain(wanted, { lookUp, sysfs: folder, dev: folder }).then(
    ({ identity }) => assert.unreachable(identity) as never,
    (error) => `${error.code}: ${error.message}`,
  );
}

test("a loop device that was mapped to other bytes of its file is another one", async () => {
  const loop = { diskseq: "4", "loop/backing_file": "/a" };
  device("7:0", "loop0", { ...loop, "loop/offset": "0" });
  device("259:0", "loop0/loop0p1", { partition: "1", start: "8" });
  const [before, part] = [recorded("7:0"), recorded("259:0")];
  device("7:0", "loop0", { ...loop, "loop/offset": "1048576" });
  for (const record of [before, part]) assert.match(await refused(record), "is another device now");
  // Recorded by a version without this field.
  const { loopOffsetBytes: _, ...earlier } = before.marks!;
  assert.is(compareMarks(earlier, readMarks("7:0", folder)!), "same");
});

test("a device that is gone, one that is another, one that came back under another number", async () => {
  device("7:0", "loop0", { diskseq: "4" });
  const loop = recorded("7:0", "/dev/loop0");
  device("7:0", "loop0", { diskseq: "5" });
  assert.is(await refused(loop), "DEVICE_NOT_FOUND: /dev/loop0 (7:0) is another device now");
  remove("7:0");
  assert.is(await refused(loop), "DEVICE_NOT_FOUND: /dev/loop0 (7:0) is gone");
  device("8:0", "sda", { diskseq: "1", "device/wwid": "naa.5" });
  const disk = recorded("8:0", "/dev/sda");
  device("8:0", "sda", { diskseq: "8", "device/wwid": "naa.6" });
  device("8:16", "sdb", { diskseq: "9", "device/wwid": "naa.5" });
  assert.match(await refused(disk), "the device 8:16, known as /dev/sda, has no node in /dev");
  device("8:32", "sdc", { diskseq: "10", "device/wwid": "naa.5" });
  assert.match(await refused(disk), "/dev/sda is one of 8:16, 8:32");
});

test("a record of an older daemon is matched by the number", async () => {
  assert.match(await refused({ device: "/dev/x", identity: "block:7:0" }), "/dev/x (7:0) is gone");
});

test("a file is found by another name, and another file under its old name is not mistaken for it", async () => {
  const path = join(folder, "disk.img");
  writeFileSync(path, "");
  const wanted = { device: path, identity: await identityAt(path, lookUp) };
  assert.equal(await findAgain(wanted, { lookUp }), {
    identity: wanted.identity,
    path,
    wasAway: false,
  });
  renameSync(path, join(folder, "re named\n.img"));
  assert.is((await findAgain(wanted, { lookUp })).path, join(folder, "re named\n.img"));
  writeFileSync(path, "");
  linkSync(join(folder, "re named\n.img"), join(folder, "again.img"));
  assert.ok(
    [join(folder, "re named\n.img"), join(folder, "again.img")].includes(
      (await findAgain(wanted, { lookUp })).path,
    ),
  );
  rmSync(join(folder, "re named\n.img"));
  rmSync(join(folder, "again.img"));
  assert.match(await refused(wanted), `${path} is another file now`);
  rmSync(path);
  assert.match(await refused(wanted), `${path} does not exist (ENOENT)`);
});

test("at boot: a device is found by its name at attach, unless that leads to another disk", async () => {
  const names = { wwid: "naa.5", serial: null, dmUuid: null, partition: null, partUuid: null };
  const identity = { ...names, contentUuid: "aa" };
  const wanted = { device: "/dev/sdb", identity };
  let at: string | undefined = "8:16";
  const options = {
    sysfs: folder,
    dev: folder,
    lookUp: async (path: string) => {
      if (at === undefined) throw Object.assign(new Error("ENOENT"), { code: "ENOENT" });
      const [major = 0, minor = 0] = at.split(":").map(Number);
      const device = { major: 0, minor: 6 };
      return { realPath: path, device, blockDevice: { major, minor }, identity: `block:${at}` };
    },
  };
  device("8:16", "sdb", { "device/wwid": "naa.5" });
  assert.is(await findAcrossBoots(wanted, options), "/dev/sdb");
  // Its kernel name has no node here that could be opened.
  device("8:32", "sdc", {});
  at = "8:32";
  assert.is(await findAcrossBoots(wanted, options), "/dev/sdb", "not known to be another one");
  device("8:32", "sdc", { "device/wwid": "naa.6" });
  assert.is(await findAcrossBoots(wanted, options), undefined, "another one is none");
  at = undefined;
  assert.is(await findAcrossBoots(wanted, options), undefined);
});

test.run();
