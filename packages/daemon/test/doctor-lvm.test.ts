import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { isZoned } from "@blksnap/linux-block";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { HostFiles } from "../dist/doctor/host-files.js";
import { checkLvm } from "../dist/doctor/lvm.js";

const test = suite("doctor lvm");
const tracked = [{ device: "/dev/disk/by-id/a", identity: "block:8:16", front: 3 }];
let root: string;

function write(path: string, text: string): void {
  const full = join(root, path);
  mkdirSync(dirname(full), { recursive: true });
  writeFileSync(full, text);
}

const state = () => checkLvm(new HostFiles(root), tracked).state;

test.before.each(() => {
  root = mkdtempSync(join(tmpdir(), "blksnap-lvm-"));
  write("sys/dev/block/8:16/uevent", "MAJOR=8\nMINOR=16\nDEVNAME=sdb\n");
  write("sys/class/block/ublkb3/dev", "259:0\n");
  write("sys/class/block/ublkb3/ublkb3p1/dev", "259:1\n");
});
test.after.each(() => rmSync(root, { recursive: true }));

test("without a tracked physical volume there is nothing to filter", () => {
  write("run/udev/data/b259:0", "E:ID_FS_TYPE=ext4\n");
  assert.is(state(), "ok");
});

for (const [where, number] of [
  ["the original", "8:16"],
  ["the front", "259:0"],
  ["a partition of the front", "259:1"],
]) {
  test(`a physical volume on ${where}, and LVM without a filter`, () => {
    write(`run/udev/data/b${number}`, "E:ID_FS_TYPE=LVM2_member\n");
    const { state: found, what, hint } = checkLvm(new HostFiles(root), tracked);
    assert.is(found, "error");
    assert.match(what, "LVM may use /dev/disk/by-id/a instead of the front");
    assert.match(hint ?? "", '"r|^/dev/disk/by-id/a$|" and "r|^/dev/sdb$|" to global_filter');
  });
}

test("a filter counts if it rejects each name of the original", () => {
  write("run/udev/data/b8:16", "E:ID_FS_TYPE=LVM2_member\n");
  const filter = (text: string) => write("etc/lvm/lvm.conf", `devices {\n${text}\n}\n`);
  filter('  # global_filter = [ "r|.*|" ]');
  assert.is(state(), "error");
  filter('  global_filter = [ "r|^/dev/sdb$|" ]');
  assert.is(state(), "error");
  filter('  global_filter = [\n    "r|^/dev/sdb$|",\n    "r#/by-id/#" ]');
  assert.is(state(), "ok");
  filter('  filter = [ "a|/dev/ublkb|", "r|.*|" ]');
  assert.is(state(), "ok");
  filter('  filter = [ "a|.*|", "r|.*|" ]');
  assert.is(state(), "error");
});

test("with a devices file, LVM ignores devices that are not in it", () => {
  write("run/udev/data/b8:16", "E:ID_FS_TYPE=LVM2_member\n");
  const entry = (name: string) =>
    write(
      "etc/lvm/devices/system.devices",
      `IDTYPE=devname IDNAME=${name} DEVNAME=${name} PVID=a\n`,
    );
  entry("/dev/ublkb3");
  assert.is(state(), "ok");
  entry("/dev/sdb");
  assert.is(state(), "error");
});

test("a devices file counts only where LVM uses it", () => {
  write("run/udev/data/b8:16", "E:ID_FS_TYPE=LVM2_member\n");
  write("etc/lvm/devices/system.devices", "IDTYPE=devname DEVNAME=/dev/ublkb3 PVID=a\n");
  const found = (...lines: string[]) => {
    write("etc/lvm/lvm.conf", `devices {\n${lines.join("\n")}\n}\n`);
    return state();
  };
  assert.is(found("\t# use_devicesfile = 1"), "ok");
  assert.is(found("\t# use_devicesfile = 0"), "error");
  assert.is(found("\t# use_devicesfile = 0", "\tuse_devicesfile = 1"), "ok");
  assert.is(found("\t# use_devicesfile = 1", "\tuse_devicesfile=0"), "error");
});

const LIVE = [
  {
    device: "/dev/vg/guest",
    identity: "block:254:7",
    front: 4,
    live: { number: "254:3", name: "vg-guest", uuid: "LVM-x", clone: "254:7" },
  },
];

test("a physical volume of a guest, below a live attach, is to be hidden from this host's LVM", () => {
  const found = () => checkLvm(new HostFiles(root), LIVE);
  write("run/udev/data/b254:3", "E:ID_FS_TYPE=ext4\n");
  assert.is(found().state, "ok");
  write("run/udev/data/b254:3", "E:ID_FS_TYPE=LVM2_member\n");
  const { state: before, what, hint } = found();
  assert.is(before, "warning");
  assert.match(what, "the physical volume in /dev/vg/guest by the front and the clone");
  const [, patterns] = /^Add (.*) to global_filter/.exec(hint ?? "") ?? [];
  const filter = (list?: string) =>
    write("etc/lvm/lvm.conf", `devices {\n  global_filter = [ ${list} ]\n}\n`);
  filter(patterns?.split(", ")[0]);
  assert.is(found().state, "warning", "it still finds the clone");
  filter(patterns);
  assert.is(found().state, "ok");
});

test("a zoned disk is recognised, also by its partition", () => {
  write("devices/sda/queue/zoned", "host-managed\n");
  write("devices/sda/sda1/partition", "1\n");
  write("devices/sdb/queue/zoned", "none\n");
  mkdirSync(join(root, "dev/block"), { recursive: true });
  for (const [number, folder] of [
    ["8:0", "sda"],
    ["8:1", "sda/sda1"],
    ["8:16", "sdb"],
  ]) {
    symlinkSync(join(root, "devices", folder as string), join(root, "dev/block", number as string));
  }
  const zoned = (minor: number) => isZoned({ major: 8, minor }, root);
  assert.equal([zoned(0), zoned(1), zoned(16), zoned(32)], [true, true, false, false]);
});

test.run();
