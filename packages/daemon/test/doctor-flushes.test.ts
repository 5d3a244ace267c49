import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { checkFlushes } from "../dist/doctor/flushes.js";
import { HostFiles } from "../dist/doctor/host-files.js";

const test = suite("doctor flushes");
let root: string;

function write(path: string, text: string): void {
  const full = join(root, path);
  mkdirSync(dirname(full), { recursive: true });
  writeFileSync(full, text);
}

function disk(number: string, name: string, cache: string): void {
  write(`sys/devices/${name}/queue/write_cache`, `${cache}\n`);
  mkdirSync(join(root, "sys/dev/block"), { recursive: true });
  symlinkSync(`../../devices/${name}`, join(root, "sys/dev/block", number));
}

test.before.each(() => {
  root = mkdtempSync(join(tmpdir(), "blksnap-flushes-"));
});
test.after.each(() => rmSync(root, { recursive: true }));

function found(identity: string, cacheOfFront: string) {
  write("sys/class/block/ublkb3/queue/write_cache", `${cacheOfFront}\n`);
  return checkFlushes(new HostFiles(root), [{ device: "/dev/vg/data", identity, front: 3 }]);
}

test("a front without a write cache is reported where its original has one, or may get one", () => {
  disk("8:0", "sda", "write back");
  disk("8:16", "sdb", "write through");
  disk("254:0", "dm-0", "write through");
  write("sys/devices/dm-0/slaves/sdb", "");
  write("sys/devices/sda/sda1/partition", "1\n");
  symlinkSync("../../devices/sda/sda1", join(root, "sys/dev/block/8:1"));
  for (const identity of ["block:8:0", "block:8:1", "block:254:0", "file:1:2"]) {
    assert.is(found(identity, "write back").state, "ok", identity);
    assert.is(found(identity, "write through").state, "error", identity);
  }
  assert.is(found("block:8:16", "write through").state, "ok");
});

test("the front and its original are named", () => {
  assert.match(found("file:1:2", "write through").what, "the front /dev/ublkb3 of /dev/vg/data");
});

test("a front that is not there is not reported", () => {
  const gone = { device: "/dev/vg/data", identity: "file:1:2", front: 4 };
  assert.is(checkFlushes(new HostFiles(root), [gone]).state, "ok");
});

test.run();
