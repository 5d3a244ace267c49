/**
 * blksnapctl mount of logical volumes in images of tracked disks, beside their originals: the right bytes, nothing changed
 * but in memory, and nothing left, also of a command that is killed at any of its steps.
 */
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { chmodSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { ctl, json, missing, noted, sleep } from "./stacks.mjs";
import { run } from "./volumes.mjs";

const LOCAL = "/etc/lvm/lvmlocal.conf";
const SHIMS = "/run/shims";
const DIR = "/mnt/image";
const FOLDER = "/mnt/original";
/** Programs, with the first word of those that do several things. */
const STEPS = [
  ["pvs"],
  ["lvs"],
  ["losetup", "--find"],
  ["dmsetup", "create"],
  ["losetup", "--detach"],
  ["vgimportclone"],
  ["lvchange"],
  ["mount"],
];
const NEEDS = ["dm-snapshot", "loop"];

/** LVM takes the front in place of its original, as docs/guide.md says. */
function hideOriginals(disks) {
  const before = readFileSync(LOCAL, "utf8");
  const reject = disks.map((disk) => `"r|^${disk}$|"`).join(", ");
  writeFileSync(LOCAL, before.replace("devices {", `devices {\n global_filter = [ ${reject} ]`));
  return () => writeFileSync(LOCAL, before);
}

/** A program in each one's place: it has its caller killed before or after the step, or fails. */
function makeShims() {
  mkdirSync(SHIMS, { recursive: true });
  for (const name of new Set(STEPS.map(([program]) => program))) {
    const path = `${SHIMS}/${name}`;
    writeFileSync(
      path,
      `#!/bin/sh
PATH=\${PATH#${SHIMS}:}
case "${name} $1 " in "$AT "*) ;; *) exec ${name} "$@" ;; esac
case $HOW in
  fails) echo "${name} says no" >&2; exit 5 ;;
  before) kill -9 $PPID; exit 5 ;;
  after) ${name} "$@"; kill -9 $PPID; exit 5 ;;
esac
`,
    );
    chmodSync(path, 0o755);
  }
}

const attempt = (words, env = {}) =>
  spawnSync("blksnapctl", words, { encoding: "utf8", env: { ...process.env, ...env } });
const mounting = (disk, ...words) => ["mount", "--device", disk, ...words, DIR];

function refused(pattern, ...words) {
  const { status, stderr } = attempt(words);
  assert.notEqual(status, 0, words.join(" "));
  assert.match(stderr, pattern);
}

/** Nodes, loop devices and files of a mount. */
function made() {
  return [
    ...run("dmsetup", "ls").split("\n"),
    ...run("losetup", "--list", "--noheadings").split("\n"),
    ...readdirSync("/run"),
  ].filter((line) => /blksnap[-_](mount|\d)/.test(line));
}

/** All that LVM has of its own, and of the group. */
function host() {
  return [
    run("pvs", "--noheadings", "-o", "pv_name,pv_uuid,vg_uuid", "--select", "vg_name=pair"),
    run("lvs", "--noheadings", "-o", "lv_name,lv_uuid,seg_type,lv_attr", "pair"),
    run("sh", "-c", "find /etc/lvm -type f ! -path '*/pair*' -exec md5sum {} + | sort"),
  ].join("\n");
}

class Pair {
  constructor(disks) {
    this.disks = disks;
    this.showOriginals = hideOriginals(disks);
    this.fronts = disks.map((disk) => {
      run("wipefs", "--all", "--force", disk);
      return /^front=(\S+)$/m.exec(ctl("attach", "--device", disk, "--front"))[1];
    });
    run("vgcreate", "pair", ...this.fronts);
    const volume = (name, ...words) =>
      run("lvcreate", "--yes", "--wipesignatures", "n", "--name", name, ...words, "pair");
    volume("data", "--size", "96M", "--stripes", "2");
    volume("my-other", "--size", "320M");
    run("udevadm", "settle");
    run("mkfs.ext4", "-q", "-F", "/dev/pair/data");
    run("mkfs.xfs", "-q", "-f", "/dev/pair/my-other");
    run("mkdir", "-p", DIR, FOLDER);
    run("mount", "/dev/pair/data", FOLDER);
    writeFileSync(`${FOLDER}/file`, "before");
  }

  take(...disks) {
    const devices = disks.flatMap((disk) => ["--device", disk]);
    const room = ["--file", "/var/tmp", "--limit", "256M"];
    const id = ctl("snapshot_create", ...devices, ...room).trim();
    ctl("snapshot_take", "--id", id);
    return id;
  }

  end() {
    // While there are images LVM changes nothing: it sees each physical volume twice.
    for (const { id } of json("status").snapshots) ctl("snapshot_destroy", "--id", id);
    run("umount", FOLDER);
    run("vgremove", "--force", "--force", "--yes", "pair");
    for (const disk of this.disks) ctl("detach", "--device", disk);
    this.showOriginals();
  }
}

/** Of what LVM has of its own on a physical volume, and of its first extents. */
const sumOfStart = (path) => run("sh", "-c", 'head -c 64M "$0" | md5sum', path);

const imagesOf = (id) => {
  const { devices } = json("status").snapshots.find((one) => one.id === id);
  return devices.map(({ image }) => image);
};

function contents({ disks }) {
  const [first] = disks;
  const before = host();
  const sums = imagesOf(json("status").snapshots[0].id).map(sumOfStart);
  refused(/--lv: data \(96.00m\), my-other \(320.00m\)/, ...mounting(first));
  refused(/has no volume none\. It has data/, ...mounting(first, "--lv", "none"));
  refused(/would end with umount/, ...mounting(first, "--lv", "data", "--writable"));
  assert.deepEqual(made(), []);
  const told = json(...mounting(first, "--lv", "data"));
  assert.deepEqual([told.volume, told.type, told.options[0]], ["pair/data", "ext4", "ro"]);
  assert.equal(readFileSync(`${DIR}/file`, "utf8"), "before");
  assert.equal(host(), before);
  ctl("umount", DIR);
  assert.deepEqual(made(), []);
  assert.equal(json(...mounting(disks[1], "--lv", "my-other")).type, "xfs");
  ctl("umount", DIR);
  assert.deepEqual(made(), []);
  assert.deepEqual(imagesOf(json("status").snapshots[0].id).map(sumOfStart), sums);
  assert.equal(host(), before);
}

/** @param {string} how of the shims */
function brokenOff(disk, how) {
  for (const [name, ...first] of STEPS) {
    const words = mounting(disk, "--lv", "data");
    const { status, signal, stderr } = attempt(words, {
      PATH: `${SHIMS}:${process.env.PATH}`,
      AT: [name, ...first].join(" "),
      HOW: how,
    });
    if (how === "fails") {
      assert.equal(status, 1, `${name}: ${stderr}`);
      assert.match(stderr, new RegExp(`${name}.*says no`));
      // What it fails to do here it fails to take back, too.
      const isLeft = first[0] === "--detach";
      assert.equal(/; this is left: \/dev\/loop\d+: /.test(stderr), isLeft, stderr);
      if (isLeft) refused(/nothing is mounted at [^;]*$/, "umount", DIR);
    } else {
      assert.equal(signal, "SIGKILL", `${name}: ${stderr}`);
      // A mount that was killed when all was done is one that can be ended.
      const { stderr: said } = attempt(["umount", DIR]);
      if (how === "before" || name !== "mount") assert.match(said, /nothing is mounted at/, name);
    }
    assert.deepEqual(made(), [], `${name} ${how}`);
  }
}

const CASES = {
  "a volume in an image is mounted, and nothing else is changed": contents,
  "nothing is left of a mount of which a program fails": ({ disks }) =>
    brokenOff(disks[0], "fails"),
  "what a mount leaves that is killed before any step is removed by the next command": ({
    disks,
  }) => brokenOff(disks[0], "before"),
  "what a mount leaves that is killed after any step is removed by the next command": ({ disks }) =>
    brokenOff(disks[0], "after"),
  "what another program holds is named, and removed later": async ({ disks }) => {
    ctl(...mounting(disks[0], "--lv", "data"));
    const node = run("findmnt", "-no", "SOURCE", DIR).trim();
    const holder = spawn("sh", ["-c", `exec sleep 600 < ${node}`]);
    while (!run("sh", "-c", `readlink /proc/${holder.pid}/fd/0 || true`).includes("/dm-")) {
      if (run("readlink", `/proc/${holder.pid}/fd/0`).includes("mapper")) break;
      await sleep();
    }
    refused(/is unmounted; this is left: .*-data, which is in use/, "umount", DIR);
    const ended = new Promise((resolve) => holder.on("exit", resolve));
    holder.kill("SIGKILL");
    await ended;
    refused(/nothing is mounted at/, "umount", DIR);
    assert.deepEqual(made(), []);
  },
  "a group is refused of which a physical volume is not in the snapshot": (pair) => {
    ctl("snapshot_destroy", "--id", json("status").snapshots[0].id);
    const id = pair.take(pair.disks[0]);
    const [, other] = pair.fronts;
    const uuid = run("pvs", "--noheadings", "-o", "pv_uuid", other).trim();
    refused(
      new RegExp(`pair.*not in the snapshot: ${uuid}`),
      ...mounting(pair.disks[0], "--lv", "data"),
    );
    assert.deepEqual(made(), []);
    ctl("snapshot_destroy", "--id", id);
  },
  "a volume is unmounted after its snapshot was destroyed": (pair) => {
    const id = pair.take(...pair.disks);
    ctl(...mounting(pair.disks[0], "--lv", "data"));
    ctl("snapshot_destroy", "--id", id);
    ctl("umount", DIR);
    assert.deepEqual(made(), []);
  },
  "a thin volume in an image is mounted": (pair) => {
    const thin = ["--yes", "--type", "thin-pool", "--size", "300M", "--name", "pool", "pair"];
    run("lvcreate", ...thin);
    run("lvcreate", "--yes", "--virtualsize", "96M", "--thinpool", "pair/pool", "--name", "thin");
    run("udevadm", "settle");
    run("mkfs.ext4", "-q", "-F", "/dev/pair/thin");
    const id = pair.take(...pair.disks);
    assert.equal(json(...mounting(pair.disks[0], "--lv", "thin")).type, "ext4");
    ctl("umount", DIR);
    assert.deepEqual(made(), []);
    ctl("snapshot_destroy", "--id", id);
  },
};
const MORE_NEEDS = { "a thin volume in an image is mounted": ["dm-thin-pool"] };

/** @param {RegExp} wanted names of cases */
export async function images(disks, wanted) {
  const results = [];
  const lacks = missing({ needs: NEEDS });
  if (lacks.length > 0) return { results: [{ name: "volumes in images", lacks }], pauses: [] };
  spawnSync("vgremove", ["--force", "--force", "--yes", "st"]);
  makeShims();
  const pair = new Pair(disks);
  pair.take(...disks);
  writeFileSync(`${FOLDER}/file`, "after!");
  run("sync", "-f", FOLDER);
  for (const [name, work] of Object.entries(CASES)) {
    if (!wanted.test(name)) continue;
    const its = missing({ needs: MORE_NEEDS[name] });
    if (its.length > 0) results.push({ name, lacks: its });
    else await noted(results, name, () => work(pair));
  }
  pair.end();
  return { results, pauses: [] };
}
