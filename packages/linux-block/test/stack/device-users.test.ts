import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { usersOf } from "@blksnap/linux-block";
import { test } from "uvu";
import * as assert from "uvu/assert";

const root = mkdtempSync(join(tmpdir(), "blksnap-users-"));
test.after(() => rmSync(root, { recursive: true }));
const [proc, sysfs] = [join(root, "proc"), join(root, "sys")];

function put(path: string, text: string): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, text);
}

function open(pid: number, comm: string, path: string): void {
  mkdirSync(join(proc, String(pid), "fd"), { recursive: true });
  symlinkSync(path, join(proc, String(pid), "fd/7"));
  put(join(proc, String(pid), "comm"), `${comm}\n`);
}

for (const [name, number] of Object.entries({
  ublkb0: "259:0",
  "ublkb0/ublkb0p1": "259:1",
  ublkb1: "259:8",
  ublkb2: "259:16",
  ublkb3: "259:24",
  ublkb10: "259:80",
})) {
  put(join(sysfs, "class/block", name, "dev"), `${number}\n`);
}
put(join(sysfs, "class/block/ublkb1/holders/dm-3"), "");
put(join(sysfs, "block/loop0/loop/backing_file"), "/dev/ublkb2\n");
put(join(proc, "swaps"), "Filename\tType\n/dev/ublkb10 partition 1024 0 -2\n");
const mountinfo = [
  "1 0 0:1 / / rw - tmpfs tmpfs rw",
  "2 1 259:1 / /srv/my\\040data rw - ext4 /dev/ublkb0p1 rw",
  "3 1 0:44 / /srv/pool rw - btrfs /dev/ublkb1 rw",
];
put(join(proc, "1/mountinfo"), `${mountinfo.join("\n")}\n`);
put(join(proc, "self/mountinfo"), `${mountinfo.slice(0, 2).join("\n")}\n`);
open(100, "dd", "/dev/ublkb2");
open(101, "(udev-worker)", "/dev/ublkb3");
open(102, "node", "/dev/ublkb3");

const paths = ["/dev/ublkb0", "/dev/ublkb1", "/dev/ublkb2", "/dev/ublkb3", "/dev/ublkb10"];

test("mounts, holders, loops, swap and open files are found, also on partitions", () => {
  const found = usersOf(paths, { proc, sysfs });
  assert.equal(Object.fromEntries(found), {
    "/dev/ublkb0": ["mounted at /srv/my data"],
    "/dev/ublkb1": ["mounted at /srv/pool", "used by dm-3"],
    "/dev/ublkb2": ["used by loop0", "dd (pid 100)"],
    "/dev/ublkb3": ["node (pid 102)"],
    "/dev/ublkb10": ["swap"],
  });
});

test("a process may exclude itself, and missing devices have no users", () => {
  const found = usersOf(["/dev/ublkb3", "/dev/ublkb9"], { proc, sysfs, exceptPid: 102 });
  assert.equal([...found.values()], [[], []]);
});

test.run();
