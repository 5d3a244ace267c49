import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { parseMountinfo } from "@blksnap/linux-block";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { stackAbove } from "../../dist/stack/block-stack.js";

const test = suite("block stack");
const FRONT = "259:0";
/** The front with its partitions, and two disks beside it. */
const NUMBERS: Record<string, string> = {
  ublkb0: FRONT,
  ublkb0p1: "259:1",
  ublkb0p2: "259:2",
  "dm-0": "252:0",
  "dm-1": "252:1",
  md0: "9:0",
  md0p1: "259:3",
  loop0: "7:0",
  loop0p1: "259:4",
  loop1: "7:1",
  sda: "8:0",
  sdb: "8:16",
};
let sysfs: string;

function write(path: string, text: string): void {
  mkdirSync(dirname(join(sysfs, path)), { recursive: true });
  writeFileSync(join(sysfs, path), `${text}\n`);
}

/** A device, inside the folder of its disk if it is a partition. */
function device(name: string, disk = name): void {
  const folder = disk === name ? `block/${name}` : `block/${disk}/${name}`;
  write(`${folder}/dev`, NUMBERS[name] as string);
  if (disk !== name) write(`${folder}/partition`, "1");
  mkdirSync(join(sysfs, folder, "holders"));
  mkdirSync(join(sysfs, "dev/block"), { recursive: true });
  symlinkSync(join(sysfs, folder), join(sysfs, "dev/block", NUMBERS[name] as string));
}

function holder(below: string, above: string): void {
  symlinkSync(join(sysfs, "block", above), join(sysfs, "block", below, "holders", above));
}

function mounts(...lines: string[]): string[] {
  const text = ["1 0 8:0 / / rw - ext4 /dev/sda rw", ...lines].join("\n");
  return stackAbove([FRONT], {
    sysfs,
    readMounts: () => parseMountinfo(text),
    deviceNumber: (path) => NUMBERS[path.replace("/dev/", "")],
  }).fileSystems.map(({ mounts: [first] }) => first!.mountPoint);
}

test.before.each(() => {
  sysfs = mkdtempSync(join(tmpdir(), "blksnap-sysfs-"));
  for (const name of ["ublkb0", "dm-0", "dm-1", "md0", "loop0", "loop1", "sda", "sdb"])
    device(name);
  device("ublkb0p1", "ublkb0");
  device("ublkb0p2", "ublkb0");
  device("md0p1", "md0");
  device("loop0p1", "loop0");
});
test.after.each(() => rmSync(sysfs, { recursive: true }));

test("a file system on the front itself is found once, on other devices not", () => {
  assert.equal(
    mounts(
      "2 1 259:0 / /mnt rw - xfs /dev/ublkb0 rw",
      "3 1 259:0 /sub /bind rw - xfs /dev/ublkb0 rw",
      "4 1 8:16 / /other rw - ext4 /dev/sdb rw",
      "5 1 0:30 / /tmp rw - tmpfs /dev/ublkb0 rw",
    ),
    ["/mnt"],
  );
});

test("file systems on partitions, device-mapper and md nodes over them, and partitions of those are found", () => {
  holder("ublkb0/ublkb0p2", "dm-0");
  holder("dm-0", "dm-1");
  holder("dm-1", "md0");
  assert.equal(
    mounts(
      "2 1 259:1 / /p1 rw - ext4 /dev/ublkb0p1 rw",
      "3 1 252:0 / /dm0 rw - ext4 /dev/mapper/x rw",
      "4 1 252:1 / /dm1 rw - ext4 /dev/mapper/y rw",
      "5 1 259:3 / /md rw - ext4 /dev/md0p1 rw",
    ),
    ["/md", "/dm1", "/dm0", "/p1"],
  );
});

test("read-only file systems are omitted, read-only mounts of others are not", () => {
  assert.equal(
    mounts(
      "2 1 259:1 / /ro ro,relatime - ext4 /dev/ublkb0p1 ro,errors=continue",
      "3 1 259:2 / /rw ro,relatime - ext4 /dev/ublkb0p2 rw",
    ),
    ["/rw"],
  );
});

test("a file system on a file of another one comes first, however deep", () => {
  write("block/loop0/loop/backing_file", "/mnt/disk image (deleted)");
  write("block/loop1/loop/backing_file", "/inner/disk");
  assert.equal(
    mounts(
      "2 1 7:1 / /innermost rw - ext4 /dev/loop1 rw",
      "3 1 259:4 / /inner rw - ext4 /dev/loop0p1 rw",
      "4 1 259:1 / /mnt rw - ext4 /dev/ublkb0p1 rw",
    ),
    ["/innermost", "/inner", "/mnt"],
  );
});

test("a loop device over a device is found, one over a file elsewhere is not", () => {
  write("block/loop0/loop/backing_file", "/dev/ublkb0p1");
  write("block/loop1/loop/backing_file", "/mnt/cover/disk");
  assert.equal(
    mounts(
      "2 1 7:0 / /loop0 rw - ext4 /dev/loop0 rw",
      "3 1 7:1 / /loop1 rw - ext4 /dev/loop1 rw",
      "4 1 259:2 / /mnt rw - ext4 /dev/ublkb0p2 rw",
      "5 4 0:40 / /mnt/cover rw - tmpfs none rw",
    ),
    ["/mnt", "/loop0"],
  );
});

test("btrfs is found by its source and by the list of its devices", () => {
  const add = (uuid: string, name: string, path: string) => {
    mkdirSync(join(sysfs, "fs/btrfs", uuid, "devices"), { recursive: true });
    symlinkSync(join(sysfs, "block", path), join(sysfs, "fs/btrfs", uuid, "devices", name));
  };
  add("aaaa", "sdb", "sdb");
  add("aaaa", "ublkb0p1", "ublkb0/ublkb0p1");
  add("bbbb", "sda", "sda");
  mkdirSync(join(sysfs, "fs/btrfs/features"));
  assert.equal(
    mounts(
      "2 1 0:50 /@ /pool rw - btrfs /dev/sdb rw,subvol=/@",
      "3 1 0:50 /@home /pool/home rw - btrfs /dev/sdb rw,subvol=/@home",
      "4 1 0:51 / /other rw - btrfs /dev/sda rw",
      "5 1 0:52 / /unlisted rw - btrfs /dev/ublkb0p2 rw",
    ),
    ["/unlisted", "/pool"],
  );
});

test("an xfs whose log lies on the member is found", () => {
  assert.equal(
    mounts(
      "2 1 8:16 / /log rw - xfs /dev/sdb rw,logdev=/dev/ublkb0p1,noquota",
      "3 1 8:0 / /none rw - xfs /dev/sda rw,logdev=/dev/sdb",
    ),
    ["/log"],
  );
});

test("the root file system comes last of its level", () => {
  const text = "1 0 259:1 / / rw - ext4 /dev/root rw\n2 1 259:2 / /var rw - ext4 /dev/x rw\n";
  const { fileSystems: found } = stackAbove([FRONT], {
    sysfs,
    readMounts: () => parseMountinfo(text),
    deviceNumber: () => undefined,
  });
  assert.equal(
    found.map(({ mounts: [first] }) => first!.mountPoint),
    ["/var", "/"],
  );
});

test.run();
