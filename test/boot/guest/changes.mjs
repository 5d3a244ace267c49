/**
 * What administrators do to volumes under a live attach: each is tracked again, in a generation that says why; and
 * what cannot be attached while it is in use, which is said, with the ways on.
 */
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { statSync, truncateSync, writeFileSync } from "node:fs";
import {
  ctl,
  json,
  makeGroup,
  missing,
  noted,
  pauses,
  run,
  STACKS,
  sleep,
  sumOf,
  Used,
  volume,
} from "./stacks.mjs";

const GROWTH = "+64M";
/** Ends what hangs: each volume is followed within a minute or two. */
const FOLLOW_LIMIT_MS = 900_000;

const trackerOf = (path) => {
  // udev makes the link anew when the volume is renamed.
  const { rdev } = statSync(path, { throwIfNoEntry: false }) ?? { rdev: 0 };
  const number = `${Math.floor(rdev / 256)}:${rdev % 256}`;
  return json("status").trackers.find((tracker) => tracker.device_number === number);
};

/** Until the volume is tracked in another generation. @returns {Promise<object>} its state of change tracking */
async function followed(path, before) {
  const endMs = performance.now() + FOLLOW_LIMIT_MS;
  for (;;) {
    const tracker = trackerOf(path);
    if (tracker?.splice?.state === "on" && tracker.cbt.generation_id !== before) {
      // By a name that it has by now.
      assert.equal(statSync(tracker.device).rdev, statSync(path).rdev);
      return tracker.cbt;
    }
    if (performance.now() > endMs) throw new Error(`not followed: ${JSON.stringify(tracker)}`);
    await sleep();
  }
}

class Changed {
  constructor(used) {
    this.used = used;
  }

  get path() {
    return this.used.tracked;
  }

  begin() {
    this.used.make();
    ctl("attach", "--device", this.path);
  }

  /** @param {string} reason of the new generation */
  async change(reason, work) {
    const { generation_id: before } = json("cbtinfo", "--device", this.path);
    work();
    const cbt = await followed(this.path, before);
    assert.equal(cbt.generation_reason, reason);
    await this.used.compare();
  }

  grow() {
    run("lvextend", "--size", GROWTH, this.path);
    const { stack, kind, type, folder } = this.used;
    if (stack.used !== stack.tracked)
      run("cryptsetup", "resize", "--key-file", "/run/stacks.key", "opened");
    run(kind.grow, type === "xfs" ? folder : stack.used);
  }

  rename() {
    const { tracked } = this.used;
    run("lvrename", tracked, `${tracked}2`);
    this.used.tracked = `${tracked}2`;
  }

  async end() {
    ctl("detach", "--device", this.path);
    // As it was made.
    run("lvrename", this.path, this.path.slice(0, -1));
    await this.used.end();
  }
}

/** All at once, as one volume is followed once a minute at most. */
async function together(results, name, all, work) {
  await Promise.all(all.map((one) => noted(results, `${name}: ${one.used.name}`, () => work(one))));
}

async function administrators(results, wanted) {
  const all = Object.entries(STACKS)
    .filter(([name, entry]) => wanted.test(name) && entry.stack.tracked.startsWith("/dev/st/"))
    .filter(([, entry]) => missing(entry).length === 0)
    .map(
      ([name, entry]) => new Changed(new Used(name, name === "striped" ? "xfs" : "ext4", entry)),
    );
  for (const one of all) one.begin();
  // Not before, as the client waits two minutes for an attach, whose sync may take longer under all these writers.
  for (const { used } of all) used.check();
  await together(results, "lvextend", all, (one) =>
    one.change("capacity_changed", () => one.grow()),
  );
  const refresh = (one) => run("lvchange", "--refresh", one.path);
  await together(results, "lvchange --refresh", all, (one) =>
    one.change("tracking_broken", () => refresh(one)),
  );
  await together(results, "lvrename", all, (one) =>
    one.change("tracking_broken", () => one.rename()),
  );
  const thin = all.filter(({ used }) => used.name === "thin");
  await together(results, "lvcreate --snapshot", thin, (one) => snapshotOfThin(one));
  await together(results, "detach", all, (one) => one.end());
}

/** LVM's own snapshot of a volume that is attached has what was written through the front. */
async function snapshotOfThin(one) {
  await one.change("tracking_broken", () => {
    run("sync", "-f", one.used.folder);
    run("lvcreate", "--snapshot", "--name", "its", "--setactivationskip", "n", one.path);
  });
  run("mount", "-o", "ro", "/dev/st/its", one.used.image);
  const [sum] = run("md5sum", `${one.used.image}/kept`).split(" ");
  run("umount", one.used.image);
  assert.equal(sum, one.used.kept);
}

/** @returns the words of a program that writes the file to where it says, and past all caches */
const copyTo = (from, to) => [`if=${from}`, `of=${to}`, "bs=1M", "oflag=direct", "status=none"];

const SOURCE = "/var/tmp/source";

/**
 * A pool with less room than its volume, which is attached though nobody uses it.
 * @param {"y" | "n"} refuses writes when it is full
 */
function smallPool(refuses) {
  run("dd", "if=/dev/urandom", `of=${SOURCE}`, "bs=1M", "count=160", "status=none");
  volume("pool", "--type", "thin-pool", "--size", "96M", "st");
  run("lvchange", "--errorwhenfull", refuses, "st/pool");
  volume("thin", "--virtualsize", "320M", "--thinpool", "st/pool");
}

const stateOfPool = () => run("dmsetup", "status", "st-pool-tpool");

const FULL = {
  "a full pool that refuses writes": {
    needs: ["dm-thin-pool"],
    async work() {
      smallPool("y");
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
      smallPool("n");
      ctl("attach", "--live", "--device", "/dev/st/thin");
      const { generation_id: before } = json("cbtinfo", "--device", "/dev/st/thin");
      const taken = ctl(
        ...["snapshot_create", "--device", "/dev/st/thin", "--file", "/var/tmp", "--limit", "1G"],
      ).trim();
      const [, image] = /^image=(\S+)$/m.exec(ctl("snapshot_take", "--id", taken));
      const frozen = sumOf(image);
      const writer = spawn("dd", copyTo(SOURCE, "/dev/st/thin"));
      const ended = new Promise((resolve) => writer.on("exit", resolve));
      while (!stateOfPool().includes("out_of_data_space")) {
        assert.equal(writer.exitCode, null, "it fits");
        await sleep();
      }
      // Who writes waits; nobody else does.
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

const REFUSED = {
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
      assert.match(refusalOf("/dev/md/pair", "--live"), /no device-mapper node/);
      run("mdadm", "--stop", "/dev/md/pair");
    },
  },
  "LUKS in use": {
    needs: ["dm-crypt"],
    async work() {
      const { stack } = STACKS["LUKS2 on LVM"];
      stack.make(96);
      assertRefused(
        "/dev/mapper/opened",
        /type crypt.*attach the device-mapper node that it lies on/s,
      );
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

/** @param {RegExp} wanted names of stacks, and of what is done to pools and refused */
export async function changes(disks, wanted) {
  makeGroup(disks);
  const results = [];
  await administrators(results, wanted);
  for (const [name, { needs, work }] of Object.entries({ ...FULL, ...REFUSED })) {
    if (!wanted.test(name)) continue;
    const lacks = missing({ needs });
    if (lacks.length > 0) results.push({ name, lacks });
    else await noted(results, name, work);
  }
  return { results, pauses: pauses() };
}
