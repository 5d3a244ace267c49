/**
 * Nodes that cannot be attached while in use, or not now: each refusal names the alternatives, and nothing is
 * changed; and pools that become full under a live attach.
 */
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { truncateSync, writeFileSync } from "node:fs";
import { ctl, json, sleep, sumOf } from "./stacks.mjs";
import { run, STACKS, volume } from "./volumes.mjs";

/** @returns the words of a program that writes the file to where it says, and past all caches */
const copyTo = (from, to) => [`if=${from}`, `of=${to}`, "bs=1M", "oflag=direct", "status=none"];

const SOURCE = "/var/tmp/source";

/**
 * A pool with less room than its volume, which is attached although nothing uses it.
 * @param {boolean} isRefusing refuses writes when it is full, at once
 */
function smallPool(isRefusing) {
  run("dd", "if=/dev/urandom", `of=${SOURCE}`, "bs=1M", "count=160", "status=none");
  volume("pool", "--type", "thin-pool", "--size", "96M", "st");
  if (isRefusing) run("lvchange", "--errorwhenfull", "y", "st/pool");
  volume("thin", "--virtualsize", "320M", "--thinpool", "st/pool");
}

const stateOfPool = () => run("dmsetup", "status", "st-pool-tpool");

export const FULL = {
  "a full pool that refuses writes": {
    needs: ["dm-thin-pool"],
    async work() {
      smallPool(true);
      const written = () =>
        spawnSync("dd", copyTo(SOURCE, "/dev/st/thin"), { encoding: "utf8" }).stderr;
      const refusal = written();
      assert.match(refusal, /No space left on device/);
      const sum = sumOf("/dev/st/thin");
      ctl("attach", "--live", "--device", "/dev/st/thin");
      assert.equal(written(), refusal);
      assert.equal(sumOf("/dev/st/thin"), sum);
      ctl("detach", "--device", "/dev/st/thin");
      assert.equal(sumOf("/dev/st/thin"), sum);
      run("lvremove", "--yes", "st/pool");
    },
  },
  "a full pool that lets writes wait until it is extended": {
    needs: ["dm-thin-pool"],
    async work() {
      smallPool(false);
      ctl("attach", "--live", "--device", "/dev/st/thin");
      const { generation_id: before } = json("cbtinfo", "--device", "/dev/st/thin");
      const taken = ctl(
        ...["snapshot_create", "--device", "/dev/st/thin", "--file", "/var/tmp", "--limit", "512M"],
      ).trim();
      const [, image] = /^image=(\S+)$/m.exec(ctl("snapshot_take", "--id", taken));
      const frozen = sumOf(image);
      const writer = spawn("dd", copyTo(SOURCE, "/dev/st/thin"));
      const ended = new Promise((resolve) => writer.on("exit", resolve));
      while (!stateOfPool().includes("out_of_data_space")) {
        assert.equal(writer.exitCode, null, "it fits");
        await sleep();
      }
      // Only writers wait.
      assert.equal(sumOf(image), frozen);
      run("lvextend", "--size", "+256M", "st/pool");
      assert.equal(await ended, 0);
      assert.equal(sumOf(image), frozen);
      run("cmp", "--bytes", String(160 * 2 ** 20), SOURCE, "/dev/st/thin");
      const { generation_id: after } = json("cbtinfo", "--device", "/dev/st/thin");
      assert.equal(after, before);
      ctl("snapshot_destroy", "--id", taken);
      ctl("detach", "--device", "/dev/st/thin");
      run("cmp", "--bytes", String(160 * 2 ** 20), SOURCE, "/dev/st/thin");
      run("lvremove", "--yes", "st/pool");
    },
  },
};

function refusalOf(device, ...words) {
  const { status, stdout, stderr } = spawnSync(
    "blksnapctl",
    ["attach", "--device", device, ...words],
    { encoding: "utf8" },
  );
  assert.equal(status, 1, stdout);
  return stderr;
}

/** @param {string} device @param {RegExp} words of the refusal */
function assertRefused(device, words) {
  run("mkfs.ext4", "-q", "-F", device);
  run("mount", device, "/mnt");
  try {
    const before = json("status").trackers;
    assert.match(refusalOf(device), words);
    writeFileSync("/mnt/written", "");
    assert.deepEqual(
      json("status").trackers.map(({ device }) => device),
      before.map(({ device }) => device),
    );
  } finally {
    run("umount", "/mnt");
  }
}

/** @returns {string[]} disks of their own */
function loops(count) {
  return Array.from({ length: count }, (_, index) => {
    const file = `/var/tmp/loop${index}`;
    writeFileSync(file, "");
    truncateSync(file, 64 * 2 ** 20);
    return run("losetup", "--find", "--show", file).trim();
  });
}

export const REFUSED = {
  "md in use": {
    needs: ["raid1"],
    async work() {
      const words = [
        "--create",
        "--bitmap=none",
        "/dev/md/pair",
        "--run",
        "--level=1",
        "--raid-devices=2",
        "--metadata=1.2",
      ];
      run("mdadm", ...words, ...loops(2));
      run("udevadm", "settle");
      assertRefused("/dev/md/pair", /put a device-mapper linear node under its file system/);
      assert.match(refusalOf("/dev/md/pair", "--live"), /not a device-mapper node/);
      run("mdadm", "--stop", "/dev/md/pair");
    },
  },
  "a volume of a group that LVM's lock holds in use": {
    async work() {
      volume("held", "--size", "64M", "st");
      const holder = spawn("flock", ["/run/lock/lvm/V_st", "sleep", "1000"], { detached: true });
      try {
        assertRefused("/dev/st/held", /LVM changes the volume group st: its lock .* was not free/);
      } finally {
        process.kill(-holder.pid);
      }
      ctl("attach", "--live", "--device", "/dev/st/held");
      ctl("detach", "--device", "/dev/st/held");
      run("lvremove", "--yes", "st/held");
    },
  },
  "a suspended volume in use": {
    async work() {
      volume("still", "--size", "64M", "st");
      const table = run("dmsetup", "table", "st-still");
      run("mkfs.ext4", "-q", "-F", "/dev/st/still");
      run("mount", "/dev/st/still", "/mnt");
      run("dmsetup", "suspend", "st-still");
      try {
        assert.match(refusalOf("/dev/st/still"), /st-still is suspended: resume it first/);
      } finally {
        run("dmsetup", "resume", "st-still");
      }
      run("umount", "/mnt");
      run("dmsetup", "suspend", "st-still");
      try {
        assert.match(refusalOf("/dev/st/still", "--live"), /st-still is suspended/);
      } finally {
        run("dmsetup", "resume", "st-still");
      }
      assert.equal(run("dmsetup", "table", "st-still"), table);
      assert.deepEqual(json("status").trackers, []);
      run("lvremove", "--yes", "st/still");
    },
  },
  "attached live one above the other, in use": {
    async work() {
      volume("below", "--size", "64M", "st");
      const sectors = run("blockdev", "--getsz", "/dev/st/below").trim();
      const table = `0 ${sectors} linear /dev/st/below 0`;
      run("dmsetup", "create", "upper", "--table", table);
      run("udevadm", "settle");
      ctl("attach", "--live", "--device", "/dev/mapper/upper");
      assert.match(ctl("attach", "--live", "--device", "/dev/mapper/upper"), /^live=/m);
      assert.match(refusalOf("/dev/st/below", "--live"), /upper/);
      assert.equal(json("status").trackers.length, 1);
      ctl("detach", "--device", "/dev/mapper/upper");
      ctl("attach", "--live", "--device", "/dev/st/below");
      assert.match(refusalOf("/dev/mapper/upper", "--live"), /below/);
      ctl("detach", "--device", "/dev/st/below");
      run("dmsetup", "remove", "--retry", "upper");
      run("lvremove", "--yes", "st/below");
    },
  },
  "LUKS in use": {
    needs: ["dm-crypt"],
    async work() {
      const { stack } = STACKS["LUKS2 on LVM"];
      stack.make(96);
      assertRefused("/dev/mapper/opened", /type crypt.*attach the device-mapper node below it/s);
      stack.remove();
    },
  },
  "multipath in use": {
    needs: ["dm-multipath", "dm-round-robin"],
    async work() {
      const [disk] = loops(1);
      const sectors = run("blockdev", "--getsz", disk).trim();
      const number = run("lsblk", "-dno", "MAJ:MIN", disk).trim();
      run(
        "dmsetup",
        "create",
        "one",
        "--table",
        `0 ${sectors} multipath 0 0 1 1 round-robin 0 1 1 ${number} 1`,
      );
      run("udevadm", "settle");
      assertRefused("/dev/mapper/one", /type multipath.*attach a logical volume on it/s);
      run("dmsetup", "remove", "--retry", "one");
    },
  },
};
