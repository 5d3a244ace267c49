/**
 * Administrators' changes of volumes under a live attach: each volume is tracked again, in a generation with a
 * reason, or its tracking ends with one. refusals.mjs has more.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { statSync } from "node:fs";
import { FULL, REFUSED } from "./refusals.mjs";
import { ctl, json, makeGroup, missing, noted, pauses, sleep, Used } from "./stacks.mjs";
import { run, STACKS, volume } from "./volumes.mjs";

const KEY = "/run/stacks.key";
const GROWTH = "+64M";
/** Ends a hang: each volume is followed within a minute or two. */
const FOLLOW_LIMIT_MS = 900_000;

const trackerOf = (path) => {
  // udev recreates the link when the volume is renamed.
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

  get generation() {
    return json("cbtinfo", "--device", this.path).generation_id;
  }

  get isAbove() {
    const { stack } = this.used;
    return stack.used !== stack.tracked;
  }

  grow() {
    run("lvextend", "--size", GROWTH, this.path);
    const { stack, kind, type, folder } = this.used;
    if (this.isAbove) run("cryptsetup", "resize", "--key-file", KEY, "opened");
    run(kind.grow, type === "xfs" ? folder : stack.used);
  }

  /** LVM has the file system grow, too; what lies between the two LVM cannot open. */
  growAll() {
    if (this.isAbove) this.grow();
    else run("lvextend", "--resizefs", "--size", GROWTH, this.path);
  }

  /** Changes of a node above affect nothing below. */
  async changeAbove() {
    const { generation } = this;
    for (const verb of ["refresh", "resize"]) run("cryptsetup", verb, "--key-file", KEY, "opened");
    await this.used.compare();
    assert.equal(this.generation, generation);
  }

  rename(suffix) {
    const path = `${this.used.stack.tracked}${suffix}`;
    run("lvrename", this.path, path);
    this.used.tracked = path;
  }

  /** LVM refuses to remove a volume in use, and leaves it unchanged. */
  assertKept() {
    const { generation } = this;
    assert.notEqual(spawnSync("lvchange", ["--activate", "n", this.path]).status, 0);
    assert.notEqual(spawnSync("lvremove", ["--yes", this.path]).status, 0);
    assert.equal(this.generation, generation);
  }

  async end() {
    ctl("detach", "--device", this.path);
    // As it was made.
    if (this.path !== this.used.stack.tracked) this.rename("");
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
  // Not earlier: the client waits two minutes for an attach, whose sync may take longer under all these writers.
  for (const { used } of all) used.check();
  const grown = "capacity_changed";
  const anew = "tracking_broken";
  const steps = [
    // Before any name changes: neither LVM nor XFS resizes what is mounted by another one.
    ["lvextend --resizefs", (one) => one.change(grown, () => one.growAll())],
    ["lvextend", (one) => one.change(grown, () => one.grow())],
    ["lvchange --refresh", (one) => one.change(anew, () => run("lvchange", "--refresh", one.path))],
    ["lvchange --activate n, lvremove", async (one) => one.assertKept()],
    ["lvrename", (one) => one.change(anew, () => one.rename("2"))],
    [
      "lvrename, twice",
      (one) =>
        one.change(anew, () => {
          one.rename("3");
          one.rename("4");
        }),
    ],
  ];
  for (const [name, work] of steps) await together(results, name, all, work);
  const luks = all.filter(({ isAbove }) => isAbove);
  await together(results, "cryptsetup refresh, cryptsetup resize", luks, (one) =>
    one.changeAbove(),
  );
  const thin = all.filter(({ used }) => used.name === "thin");
  await together(results, "lvcreate --snapshot", thin, (one) => snapshotOfThin(one));
  await renameGroup(results, all, "st", "renamed");
  await renameGroup(results, all, "renamed", "st");
  await together(results, "detach", all, (one) => one.end());
}

/** All volumes at once. */
async function renameGroup(results, all, from, to) {
  if (all.length === 0) return;
  const before = all.map(({ generation }) => generation);
  run("vgrename", from, to);
  for (const { used } of all) used.tracked = used.tracked.replace(`/${from}/`, `/${to}/`);
  await together(results, `vgrename ${from} ${to}`, all, async (one) => {
    await followed(one.path, before[all.indexOf(one)]);
    await one.used.compare();
  });
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

/** A volume under a live attach with a snapshot, whose tracking ends when `change` is done to it. */
async function ended(change, why) {
  volume("short", "--size", "96M", "st");
  const attach = () => ctl("attach", "--live", "--device", "/dev/st/short");
  attach();
  const id = ctl(
    ...["snapshot_create", "--device", "/dev/st/short", "--file", "/var/tmp", "--limit", "512M"],
  ).trim();
  const [, image] = /^image=(\S+)$/m.exec(ctl("snapshot_take", "--id", id));
  change();
  const lost = json("status").trackers.find(({ splice }) => splice?.state === "lost");
  assert.match(lost.splice.why, why);
  assert.match(ctl("status"), /UNTRACKED/);
  const { status, stderr } = spawnSync("blksnapctl", ["cbtinfo", "--device", lost.device], {
    encoding: "utf8",
  });
  assert.notEqual(status, 0);
  assert.match(stderr, /SPLICE_LOST|no longer leads to the front/);
  assert.notEqual(spawnSync("dd", [`if=${image}`, "of=/dev/null", "iflag=direct"]).status, 0);
  for (let told = ""; !told.includes('"splice_lost"'); told = ctl("events", "--all", "--json")) {
    await sleep();
  }
  ctl("snapshot_destroy", "--id", id);
  ctl("detach", "--device", lost.device);
  assert.doesNotMatch(run("dmsetup", "ls"), /-blksnap/);
  return attach;
}

const ENDS = {
  "an attached volume that is reduced": {
    async work() {
      const reduce = () => run("lvreduce", "--force", "--yes", "--size", "64M", "/dev/st/short");
      const attach = await ended(reduce, /another table/);
      attach();
      ctl("detach", "--device", "/dev/st/short");
      run("lvremove", "--yes", "st/short");
    },
  },
  "an attached volume that gets a snapshot of LVM": {
    needs: ["dm-snapshot"],
    async work() {
      const words = ["--snapshot", "--size", "32M", "--name", "cow", "/dev/st/short"];
      const attach = await ended(() => run("lvcreate", ...words), /another table/);
      assert.throws(attach, /a target of type snapshot-origin/);
      run("lvremove", "--yes", "st/cow");
      attach();
      ctl("detach", "--device", "/dev/st/short");
      run("lvremove", "--yes", "st/short");
    },
  },
  "an attached volume that is removed": {
    async work() {
      await ended(() => run("lvremove", "--yes", "st/short"), /it was removed/);
    },
  },
};

/** @param {RegExp} wanted names of stacks, and of what is done to pools and refused */
export async function changes(disks, wanted) {
  makeGroup(disks);
  const results = [];
  await administrators(results, wanted);
  for (const [name, { needs, work }] of Object.entries({ ...ENDS, ...FULL, ...REFUSED })) {
    if (!wanted.test(name)) continue;
    const lacks = missing({ needs });
    if (lacks.length > 0) results.push({ name, lacks });
    else await noted(results, name, work);
  }
  return { results, pauses: pauses() };
}
