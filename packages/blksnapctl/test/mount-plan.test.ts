import { test } from "uvu";
import * as assert from "uvu/assert";
import { mountPlan, type Probed } from "../dist/mount-plan.js";

const IMAGE = "/dev/ublkb1";
const OLD = { hasTemporaryFsid: false };
const NEW = { hasTemporaryFsid: true };

function plan(probed: Probed, host = NEW) {
  return mountPlan(IMAGE, probed, host);
}

test("a second mount of a file system has what it needs", () => {
  const options = (type: string) => {
    const found = plan({ TYPE: type });
    return "why" in found ? found.why : [found.type, found.options, found.withoutJournal];
  };
  assert.equal(options("ext4"), ["ext4", [], "noload"]);
  assert.equal(options("xfs"), ["xfs", ["nouuid"], "norecovery"]);
  assert.equal(options("vfat"), ["vfat", [], undefined]);
  assert.equal(options("btrfs"), ["btrfs", [], "rescue=nologreplay"]);
});

test("an image without a file system, or one mistaken for its original, is refused with advice", () => {
  const refusals: [Probed, RegExp, RegExp][] = [
    [{ TYPE: "LVM2_member" }, /LVM/, /^vgimportclone --basevgname copy \/dev\/ublkb1$/],
    [{ TYPE: "crypto_LUKS" }, /LUKS/, /^cryptsetup open --readonly \/dev\/ublkb1 /],
    [{ TYPE: "linux_raid_member" }, /md/, /^mdadm --assemble --readonly/],
    [{ TYPE: "zfs_member" }, /ZFS/, /^zpool import/],
    [{ TYPE: "swap" }, /swap/, /files/],
    [{ PTTYPE: "gpt" }, /partition table \(gpt\)/, /^losetup .*--partscan.* \/dev\/ublkb1;/],
    [{}, /no file system/, /blkid/],
  ];
  for (const [probed, why, hint] of refusals) {
    const found = plan(probed);
    if (!("why" in found)) throw new Error(`${JSON.stringify(probed)} is mounted`);
    assert.match(found.why, why);
    assert.match(found.hint, hint);
  }
  const btrfs = plan({ TYPE: "btrfs" }, OLD);
  assert.match("why" in btrfs ? btrfs.why : "mounted", /would mistake it for the original/);
  // A file system on a whole disk may also look like a partition table.
  const both = plan({ TYPE: "vfat", PTTYPE: "dos" });
  assert.is("type" in both && both.type, "vfat");
});

test.run();
