/**
 * What udev, LVM and md make of images, clones and fronts beside their originals, all of which have the same
 * signatures: names lead to fronts, or to the user's node, and nothing is assembled of an image.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync, realpathSync, writeFileSync } from "node:fs";
import { ctl, json, missing } from "./stacks.mjs";
import { run } from "./volumes.mjs";

const LVM_LOCAL = "/etc/lvm/lvmlocal.conf";
/** As docs/guide.md has it. */
const FILTER = 'global_filter = [ "r|^/dev/ublkb|", "r|^/dev/mapper/.*-blksnap$|" ]';
const TRACKED_EXT4 = "/dev/vg/uuid";
const TRACKED_XFS = "/dev/vg/label";
const LIVE = "/dev/vg/other";
const CLONE = "/dev/mapper/vg-other-blksnap";

const properties = (device) =>
  Object.fromEntries(
    run("udevadm", "info", "--query=property", device)
      .trim()
      .split("\n")
      .map((line) => line.split(/=(.*)/s, 2)),
  );

const linksOf = (device) => (properties(device).DEVLINKS ?? "").split(" ").filter(Boolean);
const arrays = () => readdirSync("/sys/class/block").filter((name) => /^md\d/.test(name));
const frontOf = (device) => json("status").trackers.find((one) => one.device === device).front;

/** Nothing finds it by what is on it. */
function assertHidden(device, kind) {
  const seen = properties(device);
  assert.equal(seen.BLKSNAP_KIND, kind, device);
  assert.equal(seen.UDISKS_IGNORE, "1", device);
  assert.equal(seen.ID_FS_TYPE, undefined, device);
  const found = linksOf(device).filter((link) =>
    /\/by-(uuid|label|partuuid|id\/(md|lvm))/.test(link),
  );
  assert.deepEqual(found, [], device);
}

/** A member of an array and a physical volume, which lie on fronts. */
function makeMembers([memberDisk, volumeDisk]) {
  for (const disk of [memberDisk, volumeDisk]) run("wipefs", "--all", "--force", disk);
  const hasArray = missing({ needs: ["raid1"] }).length === 0;
  if (hasArray) {
    const words = ["--level=1", "--raid-devices=2", "--metadata=1.2", "--assume-clean", "--run"];
    run("mdadm", "--create", "/dev/md/kept", ...words, memberDisk, "missing");
    run("mdadm", "--stop", "/dev/md/kept");
  }
  run("pvcreate", volumeDisk);
  run("vgcreate", "lone", volumeDisk);
  run("udevadm", "settle");
  const disks = hasArray ? [memberDisk, volumeDisk] : [volumeDisk];
  for (const disk of disks) ctl("attach", "--device", disk, "--front");
  run("udevadm", "settle");
  return disks;
}

function clear(disks) {
  for (const name of arrays()) run("mdadm", "--stop", `/dev/${name}`);
  for (const disk of disks) {
    ctl("detach", "--device", disk);
    run("wipefs", "--all", "--force", disk);
  }
}

/** @returns what LVM says of physical volumes; its commands look at devices by themselves */
function physicalVolumes() {
  const { stdout, stderr, status } = spawnSync("pvs", ["--noheadings", "-o", "pv_uuid,pv_name"], {
    encoding: "utf8",
  });
  assert.equal(status, 0, stderr);
  const lines = stdout.trim().split("\n");
  return { uuids: lines.map((line) => line.trim().split(/\s+/)[0]), stderr };
}

function assertOneOfEach() {
  const unfiltered = physicalVolumes();
  assert.equal(new Set(unfiltered.uuids).size, unfiltered.uuids.length, unfiltered.uuids.join());
  // It uses no front and no image, says so, and says nothing of others.
  assert.match(unfiltered.stderr, /Not using device \/dev\/ublkb\d+ for PV/);
  assert.doesNotMatch(unfiltered.stderr, /Not using device (?!\/dev\/ublkb)/);
  const before = readFileSync(LVM_LOCAL, "utf8");
  writeFileSync(LVM_LOCAL, before.replace("devices {", `devices {\n ${FILTER}`));
  try {
    const { uuids, stderr } = physicalVolumes();
    assert.deepEqual([uuids.toSorted(), stderr], [unfiltered.uuids.toSorted(), ""]);
  } finally {
    writeFileSync(LVM_LOCAL, before);
  }
}

/** @param {string[]} disks unused ones; {@link LIVE} is attached live */
export function assertNames(disks) {
  const liveNode = realpathSync(LIVE);
  const members = makeMembers(disks);
  const arraysOfFronts = arrays();
  const devices = [TRACKED_EXT4, TRACKED_XFS, LIVE, ...members];
  const room = ["--file", "/var/tmp", "--limit", "512M"];
  const words = devices.flatMap((device) => ["--device", device]);
  const id = ctl("snapshot_create", ...words, ...room).trim();
  ctl("snapshot_take", "--id", id);
  run("udevadm", "settle");
  // What would look at the devices again at any time.
  run("udevadm", "trigger", "--subsystem-match=block", "--action=change");
  run("udevadm", "settle");

  const by = (kind, name) => realpathSync(`/dev/disk/by-${kind}/${name}`);
  assert.equal(by("uuid", "11111111-1111-1111-1111-111111111111"), frontOf(TRACKED_EXT4));
  assert.equal(by("label", "my\\x20data"), frontOf(TRACKED_XFS));
  assert.equal(by("uuid", "22222222-2222-2222-2222-222222222222"), liveNode);
  const { devices: taken } = json("status").snapshots.find((one) => one.id === id);
  assert.equal(taken.length, devices.length);
  for (const { device, image } of taken) {
    assertHidden(image, "image");
    assert.equal(realpathSync(`/dev/blksnap/snapshot/${id}${device}`), image);
    assert.equal(realpathSync(`/dev/blksnap/by-original${device}`), frontOf(device));
    assert.deepEqual(readdirSync(`/sys/class/block/${image.slice(5)}/holders`), [], device);
  }
  for (const device of [TRACKED_EXT4, TRACKED_XFS, ...members]) {
    assert.equal(properties(frontOf(device)).BLKSNAP_KIND, "front", device);
  }
  // The node above has its content.
  assertHidden(frontOf(LIVE), "image");
  assertHidden(CLONE, "clone");
  assert.equal(properties(CLONE).SYSTEMD_READY, "0");
  assert.deepEqual(arrays(), arraysOfFronts);
  assertOneOfEach();
  ctl("snapshot_destroy", "--id", id);
  clear(members);
}
