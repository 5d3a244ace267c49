import { mountAt, parseMountinfo } from "@blksnap/linux-block";
import { test } from "uvu";
import * as assert from "uvu/assert";

test("names with blanks, and names that are not UTF-8, are parsed", () => {
  const place = "9 1 0:50 /sub /a\\040\u00ff rw,noatime shared:3";
  const [mount] = parseMountinfo(`${place} - btrfs /dev/x\\011y rw,subvol=/a\\054b`);
  assert.equal(mount, {
    id: 9,
    parent: 1,
    device: "0:50",
    root: "/sub",
    mountPoint: "/a \ufffd",
    mountPointBytes: Buffer.from("/a \u00ff", "latin1"),
    fsType: "btrfs",
    source: "/dev/x\ty",
    superOptions: ["rw", "subvol=/a,b"],
  });
});

test("a path is resolved through mounts as the kernel does it", () => {
  const list = parseMountinfo(
    [
      "20 1 0:2 / / rw - rootfs rootfs rw",
      "21 20 8:0 / / rw - ext4 /dev/sda rw",
      "22 21 8:1 / /a/b rw - ext4 /dev/sda1 rw",
      "23 21 8:2 / /a rw - ext4 /dev/sda2 rw",
      "24 23 8:3 / /a/c\\040d rw - ext4 /dev/sda3 rw",
      "25 24 8:4 / /a/c\\040d rw - ext4 /dev/sda4 rw",
      "not a line",
    ].join("\n"),
  );
  const at = (path: string) => mountAt(path, list)?.id;
  assert.is(at("/x"), 21);
  assert.is(at("/a/b/file"), 23, "/a was mounted over /a/b");
  assert.is(at("/a/c d/file"), 25);
  assert.is(at("/a/c dx"), 23);
  assert.is(mountAt("/x", []), undefined);
});

test.run();
