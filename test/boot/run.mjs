/** npm run test:boot: boots a machine with real systemd and udev from one disk. */
import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { makeRootDisk, readFromDisk } from "./image.mjs";
import { boot, makeMachine } from "./machine.mjs";

const USAGE = `Usage: npm run test:boot [-- OPTION...]

Installs the Debian package of what is built on a disk with Debian 13, and boots it: fstab with UUID, LABEL and a
name, a mount unit, reboot, power cut, no ublk_drv, rescue mode, dpkg; then live attach on LVM, LUKS, multipath and md, and what
administrators do to volumes meanwhile. Needs root, mmdebstrap and the network the first time.

  --only PARTS    boots, nbd (its socket), stacks or images (volumes of LVM in them)
  --stacks WORDS  names of stacks (with a file system: multipath.*xfs), and of what is done to them, a regular
                  expression without spaces
  --rounds N      of each stack and file system; default: 20, emulated 2
  --uml           User Mode Linux (tools/vm/README.md) in place of the emulated stock kernel
  --keep FOLDER   leave disks, consoles and what was noted there
  --help`;

const { values } = parseArgs({
  options: {
    uml: { type: "boolean" },
    keep: { type: "string" },
    only: { type: "string" },
    stacks: { type: "string", default: "." },
    rounds: { type: "string", default: process.argv.includes("--uml") ? "20" : "2" },
    help: { type: "boolean" },
  },
});
if (values.help) {
  console.log(USAGE);
  process.exit(0);
}

/** Ends a hanging machine. */
const LIMIT_MS = values.uml ? 900_000 : 1_500_000;
const STACKS_LIMIT_MS = 6 * LIMIT_MS;
const FRONT = /^\/dev\/ublkb\d+$/;
const TRACKED = {
  "/srv/uuid": "/dev/vg/uuid",
  "/srv/label": "/dev/vg/label",
  "/srv/name": "/dev/mapper/vg-name",
  "/srv/unit": "/dev/vg/unit",
  "/home": "/dev/vg/home",
};
const counts = { passed: 0, failed: 0 };

class Lives {
  constructor(kind, folder) {
    this.folder = folder;
    this.machine = makeMachine(kind, folder);
  }

  async prepare() {
    this.root = await makeRootDisk(this.machine.kernel, this.folder, this.machine.root);
    this.disks = [this.root];
    for (const name of ["data", "stack-1", "stack-2"]) {
      const path = join(this.folder, `${name}.img`);
      writeFileSync(path, "");
      truncateSync(path, 2 * 2 ** 30);
      this.disks.push(path);
    }
  }

  /**
   * One boot.
   * @param {string} name
   * @returns what the machine has noted
   */
  async live(name, action, { words = [], limitMs = LIMIT_MS } = {}) {
    const consolePath = join(this.folder, `console-${name}.txt`);
    const all = [`blksnap.step=${name}.${action}`, ...words];
    const isOver = await boot(this.machine.command(this.disks, all), consolePath, limitMs);
    const tail = () => readFileSync(consolePath, "utf8").slice(-3000);
    if (!isOver) throw new Error(`${name}: the machine did not end\n${tail()}`);
    const text = readFromDisk(this.root, `/root/test/${name}.json`);
    writeFileSync(join(this.folder, `${name}.json`), text);
    if (text === "") throw new Error(`${name}: nothing was noted\n${tail()}`);
    const noted = JSON.parse(text);
    assert.equal(noted.error, undefined);
    return noted;
  }
}

async function test(name, body) {
  const startedMs = Date.now();
  try {
    await body();
    counts.passed++;
    console.log(`✓ ${name} (${Math.round((Date.now() - startedMs) / 1000)} s)`);
  } catch (error) {
    counts.failed++;
    console.log(`✗ ${name}\n${error.stack}`);
  }
}

function isOnFronts({ mounts, failed, devices, missing, swap, below, log }, { isRescue } = {}) {
  const crypt = below === null || isRescue ? {} : { "/srv/above": "/dev/mapper/above" };
  const tracked = { ...TRACKED, ...crypt };
  for (const place of Object.keys(tracked)) assert.match(mounts[place], FRONT, `${place}\n${log}`);
  if (below !== null) {
    assert.equal(mounts["/srv/below"], "/dev/mapper/below", log);
    assert.match(below.join(), /^ublkb\d+$/, log);
  }
  assert.equal(mounts["/srv/other"], "/dev/mapper/vg-other");
  assert.equal(failed, "");
  const others = ["/dev/vg/swap", ...(below === null ? [] : ["/dev/vg/below"])];
  const ours = devices.filter((device) => !isRescue || device !== "/dev/mapper/above");
  assert.deepEqual(ours.toSorted(), [...Object.values(tracked), ...others].toSorted());
  // It has a front, but no name of an fstab leads to it.
  assert.match(swap, /^\/dev\/dm-\d+$/);
  assert.deepEqual(
    missing
      .filter(({ device }) => !isRescue || device !== "/dev/mapper/above")
      .map(({ device, code }) => [device, code]),
    [["/dev/vg/absent", "DEVICE_NOT_FOUND"]],
  );
}

const generations = ({ tracking }) =>
  Object.fromEntries(
    Object.values(TRACKED)
      .filter((device) => tracking[device] !== undefined)
      .map((device) => [device, tracking[device].generation_id]),
  );
const reasons = ({ tracking }) =>
  Object.fromEntries(
    Object.values(TRACKED).map((device) => [device, tracking[device].generation_reason]),
  );
/** XFS proves nothing after a power cut (docs/persistence.md). */
const ofExt4 = (noted) => {
  const { "/dev/vg/label": _, ...others } = generations(noted);
  return others;
};
const assertAnew = (now, before) => {
  for (const [device, generation] of Object.entries(generations(now))) {
    assert.notEqual(generation, generations(before)[device], device);
  }
};
const everywhere = (text, places) => Object.fromEntries(places.map((place) => [place, text]));

async function setUp(lives) {
  await test("the package is installed, and volumes are made", async () => {
    await lives.prepare();
    const { setup } = await lives.live("setup", "setup");
    assert.match(setup, /\+ cat\n$/);
    const lacks = [
      ...(setup.includes("cryptsetup luksFormat") ? [] : ["dm-crypt: volumes of crypttab"]),
      ...(setup.includes("x-systemd.automount") ? [] : ["autofs: /home is mounted on demand"]),
    ];
    for (const what of lacks) console.log(`  NOT RUN, as the kernel has no ${what}`);
    if (process.env.CI) assert.deepEqual(lacks, []);
  });
}

/** Reports all failures, and what this kernel cannot test. */
function assertAll({ results, pauses }) {
  for (const { name, lacks } of results) {
    if (lacks) console.log(`  NOT RUN, as the kernel has no ${lacks.join(", ")}: ${name}`);
    else console.log(`  ${name}`);
  }
  const [longest] = pauses.toSorted((one, other) => other - one);
  if (longest !== undefined) {
    console.log(`  ${pauses.length} exchanges of tables, the longest without I/O ${longest} ms`);
  }
  const failed = results.filter(({ error, lacks }) => error || (lacks && process.env.CI));
  assert.deepEqual(failed, []);
}

async function stacks(lives) {
  const limitMs = STACKS_LIMIT_MS;
  const words = [`blksnap.rounds=${values.rounds}`, `blksnap.stacks=${values.stacks}`];
  await test("stacks are attached live, snapshotted and detached under fio --verify, repeatedly", async () => {
    assertAll(await lives.live("stacks", "stacks", { words, limitMs }));
  });
  await test("volumes that are changed meanwhile are followed; what cannot be attached in use is said", async () => {
    assertAll(await lives.live("changes", "changes", { words, limitMs }));
  });
}

async function nbd(lives) {
  await test("the first NBD client of a boot starts the daemon, if blksnapd-nbd.socket is enabled", async () => {
    await lives.live("nbdset", "nbdset");
    const { before: early, after, first, second, byTcp } = await lives.live("nbd", "nbd");
    assert.deepEqual([early, after], [{ daemon: "inactive", socket: "active" }, "active"]);
    assert.deepEqual(first, []);
    const names = second.map((name) => name.replace(/[0-9a-f-]{36}/, "ID"));
    assert.deepEqual(names.toSorted(), ["front/vg/swap", "image/ID/vg/swap"]);
    assert.deepEqual(byTcp.toSorted(), second.toSorted());
  });
}

async function images(lives) {
  const words = [`blksnap.stacks=${values.stacks}`];
  await test("volumes of LVM in images are mounted beside their originals, and nothing is left of a mount", async () => {
    assertAll(await lives.live("images", "images", { words }));
  });
}

async function boots(lives) {
  let before;
  await test("file systems of fstab and of a unit come up on their fronts; one that is absent is waited for, and passed over", async () => {
    before = await lives.live("first", "write");
    isOnFronts(before);
  });
  await test("after a reboot tracking continues; metrics are scraped by the recipe of docs/monitoring.md", async () => {
    const now = await lives.live("again", "scrape");
    isOnFronts(now);
    assert.deepEqual(now.contents, everywhere("first\n", Object.keys(before.contents)));
    assert.deepEqual(generations(now), generations(before));
  });
  await test("a process that stays in a file system keeps neither the machine from going down, nor writes from the disk", async () => {
    isOnFronts(await lives.live("busy", "busy"));
    const now = await lives.live("cut", "cut");
    isOnFronts(now);
    assert.equal(now.contents["/srv/uuid"], "first\nagain\nbusy\nlate\n");
    // For the other two, nothing proves what happened after the daemon if the machine ended before it did.
    const kept = "/dev/mapper/vg-name";
    assert.equal(generations(now)[kept], generations(before)[kept]);
    before = now;
  });
  await test("after a power cut tracking continues if the file system proves that there were no writes", async () => {
    const now = await lives.live("later", "later");
    isOnFronts(now);
    assert.equal(now.contents["/srv/uuid"], "first\nagain\nbusy\nlate\ncut\n");
    assert.deepEqual(ofExt4(now), ofExt4(before));
    // What was attached live is its own volume again, with all that was acknowledged.
    assert.match(now.live.table, /^0 \d+ linear /);
    assert.deepEqual(now.live, { ...before.live, clones: [], check: 0 });
    before = now;
  });
  await test("rescue mode has the fronts", async () => {
    const now = await lives.live("rescue", "write", { words: ["systemd.unit=rescue.target"] });
    isOnFronts(now, { isRescue: true });
    assert.deepEqual(generations(now), generations(before));
  });
  await test("without ublk_drv the file systems come up on their originals", async () => {
    const now = await lives.live("without", "write", { words: ["module_blacklist=ublk_drv"] });
    for (const [place, device] of Object.entries(TRACKED)) {
      assert.equal(now.mounts[place], device.replace("/dev/vg/", "/dev/mapper/vg-"), now.log);
    }
    assert.equal(now.failed, "");
  });
  await test("and the boot after that begins new generations", async () => {
    const now = await lives.live("untracked", "write");
    isOnFronts(now);
    assertAnew(now, before);
    assert.deepEqual(reasons(now), everywhere("foreign_write", Object.values(TRACKED)));
    before = now;
  });
  await test("a machine goes down with a volume that is attached live and written to", async () => {
    const now = await lives.live("live", "live");
    isOnFronts(now);
    assert.match(now.attached, /^live=\/dev\/mapper\/vg-other$/m);
  });
  await test("an upgrade of the package keeps fronts in use, its removal is refused; after both fronts come back", async () => {
    const now = await lives.live("package", "package");
    isOnFronts(now);
    assert.match(now.contents["/srv/other"], /live\n$/);
    // The daemon before has ended in order.
    assert.deepEqual(generations(now), generations(before));
    const after = await lives.live("installed", "write");
    isOnFronts(after);
    assertAnew(after, before);
    before = after;
  });
}

const folder = values.keep ?? mkdtempSync(join(tmpdir(), "blksnap-boot-"));
mkdirSync(folder, { recursive: true });
const lives = new Lives(values.uml ? "uml" : "qemu", folder);
await setUp(lives);
for (const [name, part] of Object.entries({ boots, nbd, stacks, images })) {
  if (values.only === undefined || values.only.split(",").includes(name)) await part(lives);
}
if (!values.keep && counts.failed === 0) rmSync(folder, { recursive: true });
else console.log(`what is left: ${folder}`);
console.log(`${counts.passed} passed, ${counts.failed} failed`);
process.exitCode = counts.failed === 0 ? 0 : 1;
