/**
 * Live attach, and daemons that die in the middle of it, are stopped, or need what is attached. A run takes a
 * fifth of the deaths, by its seed; POINTS=. has all of them.
 */
import {
  closeSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { basename, join } from "node:path";
import * as assert from "uvu/assert";
import { LIVE_FAULT_POINTS } from "../../../packages/data-plane/dist/fault-points.js";
import { encodeRecord } from "../../../packages/driver/dist/records/record-format.js";
import { run } from "../lib/command.mjs";
import { Daemon } from "../lib/daemon.mjs";
import { linear, mapped, sectorsOf } from "../lib/device-mapper.mjs";
import { ramDisks } from "../lib/disks.mjs";
import { Faults } from "../lib/faults.mjs";
import { checkFileSystem } from "../lib/file-systems.mjs";
import { Checker, codeOf, identityOf, nodes, tableOf, usedNode } from "../lib/live.mjs";
import { MappedDisk } from "../lib/mapped-disk.mjs";
import { seededRandom } from "../lib/random.mjs";
import { note, scenario } from "../lib/scenario.mjs";
import { MIB } from "../lib/snapshots.mjs";
import { servingPid, successor } from "../lib/successor.mjs";
import { until } from "../lib/wait.mjs";

const LONG = { timeLimitMs: 1_200_000 };
const { POINTS, SEED = String(Date.now()) } = process.env;
const PARTS = 5;
const random = seededRandom(SEED);

const test = scenario(import.meta.url, { daemon: false });

/** What the next daemon makes of a death at each point: the attach or detach is undone, or done. */
const DEATHS = [
  ...["attach.recorded", "attach.front-live"].map((point) => ["attach", point]),
  ...["live.cloned", "live.prepared"].map((point) => ["attach", point]),
  ["attach", "live.spliced", "attached"],
  ["detach", "live.return-prepared", "attached"],
  ...["live.returned", "live.clone-removed"].map((point) => ["detach", point]),
  ...["detach.front-synced", "detach.record-removed"].map((point) => ["detach", point]),
];

/** Steps of a node that has grown, and is attached again: the next daemon does so. */
const FOLLOWS = [
  ...["detach.record-removed", "live.clone-removed", "live.follow-detached", "live.cloned"],
  ...["attach.recorded", "attach.front-live", "live.prepared", "live.spliced"],
];

function deathsOfThisRun() {
  if (POINTS !== undefined) return DEATHS.filter(([, point]) => new RegExp(POINTS).test(point));
  const part = random.below(PARTS);
  return DEATHS.filter((_, index) => index % PARTS === part);
}

const deaths = deathsOfThisRun();

test(
  `the daemon killed at ${deaths.length} of ${DEATHS.length} steps, under a writer`,
  async (t) => {
    const known = [...DEATHS.map(([, name]) => name), ...FOLLOWS];
    assert.equal(
      LIVE_FAULT_POINTS.filter((point) => !known.includes(point)),
      [],
    );
    note(`SEED=${SEED}`);
    const faults = new Faults(t);
    t.daemon = await Daemon.startFor(t, { args: ["--supervise"], env: faults.environment });
    const { node, path, unmount } = await usedNode(t);
    const before = [await tableOf(node), await identityOf(node), nodes()];
    const checker = new Checker(t, path);
    for (const [verb, point, left] of deaths) {
      const pid = await servingPid(t);
      if (verb === "detach") await t.client.attach(node);
      await faults.arm(point);
      const ended = codeOf(t.client[verb](node));
      await faults.met();
      await successor(t, pid);
      await ended;
      const { trackers, waiting } = await t.client.status();
      assert.equal(waiting, [], point);
      assert.is(trackers.length, left === "attached" ? 1 : 0, point);
      if (left === "attached") {
        assert.is((await t.client.cbtInfo(node)).device, node, point);
        await t.client.detach(node);
      }
      assert.equal([await tableOf(node), await identityOf(node), nodes()], before, point);
      assert.match(await run(["dmsetup", "info", node]), "Tables present:    LIVE\n", point);
    }
    await checker.stop();
    await unmount();
    await checkFileSystem("ext4", node);
    await t.daemon.stop();
  },
  LONG,
);

const SECTORS_PER_MIB = MIB / 512;

test("the daemon is killed while it attaches a grown node again", async (t) => {
  const all = FOLLOWS.filter((point) => new RegExp(POINTS ?? ".").test(point));
  const points = POINTS === undefined ? [random.pick(all)] : all;
  note(`SEED=${SEED}: ${points.join(", ")}`);
  const faults = new Faults(t);
  t.daemon = await Daemon.startFor(t, { args: ["--supervise"], env: faults.environment });
  const [disk] = await ramDisks(t, 1, 32 * MIB);
  let sectors = (await sectorsOf(disk)) / 2;
  const tableNow = () => `0 ${sectors} linear ${disk} 0`;
  const { path: node, load } = await mapped(t, [tableNow()]);
  const before = nodes();
  await t.client.attach(node, { kind: "live" });
  for (const point of points) {
    const pid = await servingPid(t);
    const { generation_id: first } = await t.client.cbtInfo(node);
    await faults.arm(point);
    sectors += SECTORS_PER_MIB;
    await load([tableNow()]);
    await faults.met();
    await successor(t, pid);
    await until("it is tracked again", async () => {
      const { trackers, untracked } = await t.client.status();
      const [{ cbt, splice, capacity_bytes } = {}] = trackers;
      // At no time is it forgotten.
      assert.is(trackers.length + untracked.length > 0, true, point);
      if (splice?.state !== "on" || capacity_bytes !== sectors * 512) return false;
      assert.not.equal(cbt.generation_id, first, point);
      return untracked.length === 0;
    });
  }
  assert.equal(returns(), []);
  await t.client.detach(node);
  assert.equal([(await tableOf(node)).trim().split(" ")[1], nodes()], [`${sectors}`, before]);
  await t.daemon.stop();
});

const STATE = "/run/blksnap/state";

/** Of a node, so that it is known when it is called otherwise. */
const UUID = "E2E-away";

/** As a daemon has left it that ended before it had attached the node again. */
async function leaveAway(node, unended) {
  const number = (await identityOf(node)).split(" ")[0].split(":").slice(-2).join(":");
  const live = { number, name: basename(node), uuid: UUID, clone: "254:1048575" };
  const since = new Date().toISOString();
  const record = {
    device: node,
    live,
    front: "/dev/ublkb9",
    reason: "interrupted",
    since,
    unended,
  };
  mkdirSync(STATE, { recursive: true, mode: 0o700 });
  writeFileSync(`${STATE}/return-${number}.record`, encodeRecord(record));
}

test("a volume that several daemons died attaching is reported until users act, also by its old name", async (t) => {
  const [disk] = await ramDisks(t, 1, 32 * MIB);
  const { path: node } = await mapped(t, [`0 ${await sectorsOf(disk)} linear ${disk} 0`]);
  await run(["dmsetup", "rename", node, "--setuuid", UUID]);
  await leaveAway(node, 3);
  // No user has asked to end tracking of one that cannot be reached.
  const unreachable = new Daemon({ socketPath: "/proc/none", name: "unreachable" });
  assert.is.not((await unreachable.ended()).status, 0);
  assert.is(returns().length > 0, true);
  t.daemon = await Daemon.startFor(t);
  const [{ device, why, given_up }, ...more] = (await t.client.status()).untracked;
  assert.equal([device, given_up, more], [node, true, []]);
  assert.match(why, "3 daemons have ended while attaching it");
  const { front } = await t.client.attach(node, { kind: "live" });
  assert.equal([(await t.client.status()).untracked, returns()], [[], []]);
  await t.client.detach(front);
  await t.daemon.stop();

  await leaveAway(node, 3);
  t.daemon = await Daemon.startFor(t, { name: "next" });
  await run(["dmsetup", "rename", node, "renamed"]);
  assert.is((await t.client.detach(node)).device, node);
  assert.equal([(await t.client.status()).untracked, returns()], [[], []]);
  await run(["dmsetup", "rename", "renamed", basename(node)]);
  await t.daemon.stop();
});

function returns() {
  return readdirSync(STATE).filter((name) => name.startsWith("return-"));
}

function exchanges() {
  return readdirSync(STATE).filter((name) => name.startsWith("exchange-"));
}

/** A node, and the disk below it. */
async function nodeOnKeeper(t) {
  const [below] = await ramDisks(t, 1, 16 * MIB);
  const disk = await MappedDisk.create(t, below, 16 * MIB);
  return { disk, node: await linear(t, disk.path) };
}

/** Whether another process than the daemon does it: that one continues even if the daemon ends. */
function isUnderWay(daemonPid) {
  const others = readdirSync("/proc").filter((pid) => /^\d+$/.test(pid) && pid !== `${daemonPid}`);
  return others.some((pid) => openFiles(pid).some((path) => path.startsWith(`${STATE}/exchange-`)));
}

function openFiles(pid) {
  try {
    const folder = `/proc/${pid}/fd`;
    return readdirSync(folder).map((fd) => readlinkSync(`${folder}/${fd}`));
  } catch {
    // It has ended meanwhile.
    return [];
  }
}

/** Kills the daemon while the tables are exchanged; a write in flight delays the exchange until then. */
async function killInExchange(t, verb, { node, disk }, options) {
  const pid = await servingPid(t);
  await disk.keepWrites();
  const writing = run(["dd", "if=/dev/zero", `of=${node}`, "bs=4k", "count=1", "oflag=direct"]);
  await until("the write is on its way", async () => (await disk.kept()) > 0);
  const asked = codeOf(t.client[verb](node, options));
  await until("the exchange is under way", () => isUnderWay(pid));
  process.kill(pid, "SIGKILL");
  await disk.heal();
  await successor(t, pid);
  await asked;
  await writing;
  assert.equal(exchanges(), []);
}

test("the daemon is killed while the tables are exchanged", async (t) => {
  t.daemon = await Daemon.startFor(t, { args: ["--supervise"] });
  const setting = await nodeOnKeeper(t);
  const { node } = setting;
  const before = [await tableOf(node), nodes()];
  const verbs = POINTS === undefined ? [random.pick(["attach", "detach"])] : ["attach", "detach"];
  note(`SEED=${SEED}: ${verbs.join(", ")}`);
  if (verbs.includes("attach")) await killInExchange(t, "attach", setting, { kind: "live" });
  const attached = await t.client.attach(node, { kind: "live" });
  assert.equal([attached.already_attached, attached.live], [verbs.includes("attach"), node]);
  assert.is((await t.client.cbtInfo(node)).front, attached.front);
  if (verbs.includes("detach")) await killInExchange(t, "detach", setting);
  else await t.client.detach(node);
  const { trackers, waiting } = await t.client.status();
  assert.equal([trackers, waiting], [[], []]);
  assert.equal([await tableOf(node), nodes()], before);
  await t.daemon.stop();
});

const HALF = 32 * MIB;

/** The program that exchanges tables for a daemon; undefined while there is none. */
function exchangerOf(daemonPid) {
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    const stat = statOf(pid);
    if (stat?.parent === daemonPid && stat.name === "apart:exchange") return { pid, ...stat };
  }
  return undefined;
}

function statOf(pid) {
  try {
    const [, name, rest] = /^\d+ \((.*)\) (.*)/.exec(readFileSync(`/proc/${pid}/stat`, "utf8"));
    const [state, parent] = rest.split(" ");
    return { name, state, parent: Number(parent) };
  } catch {
    // It has ended meanwhile.
    return undefined;
  }
}

test("the daemon and the program that exchanges tables are killed between the kernel's refusal and the resume", async (t) => {
  t.expectKernelMessages(/too small for target/);
  const faults = new Faults(t);
  t.daemon = await Daemon.startFor(t, { args: ["--supervise"], env: faults.environment });
  const [below] = await ramDisks(t, 1, 2 * HALF);
  const disk = await MappedDisk.create(t, below, 2 * HALF);
  const node = await linear(t, disk.path);
  const before = [await tableOf(node), nodes()];
  await t.client.attach(node, { kind: "live" });
  const user = openSync(node, "r+");
  t.defer(() => closeSync(user));
  const pid = await servingPid(t);
  await faults.arm("stops live.return-prepared");
  const asked = codeOf(t.client.detach(node));
  await faults.met();
  // The kernel checks the inactive table again when it becomes the active one: its disk is too small by then. And
  // the freeze before that cannot be interrupted while it has something to write.
  disk.resize(HALF);
  await disk.keepWrites();
  const bytes = Buffer.alloc(MIB, "d");
  writeSync(user, bytes, 0, MIB, 0);
  process.kill(pid, "SIGCONT");
  const exchanger = await until("the freeze is under way", () => {
    const found = exchangerOf(pid);
    return found?.state === "D" ? found : undefined;
  });
  // It stands still when its call comes back.
  process.kill(Number(exchanger.pid), "SIGSTOP");
  await disk.heal();
  await until("the exchange is refused", () => statOf(exchanger.pid)?.state === "T");
  assert.match(await run(["dmsetup", "info", node]), /^State: +SUSPENDED$/m);
  process.kill(pid, "SIGKILL");
  process.kill(Number(exchanger.pid), "SIGKILL");
  await successor(t, pid);
  await asked;
  await until("the node continues", async () =>
    /^State: +ACTIVE$/m.test(await run(["dmsetup", "info", node])),
  );
  fsyncSync(user);
  assert.equal(exchanges(), []);
  assert.is((await t.client.cbtInfo(node)).device, node);
  disk.resize(2 * HALF);
  await disk.heal();
  await t.client.detach(node);
  assert.equal([await tableOf(node), nodes()], before);
  assert.equal(readFileSync(node).subarray(0, MIB), bytes);
  await t.daemon.stop();
});

test("a stop of the daemon takes the front out; after stop --keep the next daemon resumes it", async (t) => {
  t.daemon = await Daemon.startFor(t);
  const { node, path } = await usedNode(t);
  const before = [await tableOf(node), nodes()];
  const checker = new Checker(t, path);
  const { front } = await t.client.attach(node);
  await t.client.daemonStop({ keep: true });
  await t.daemon.ended();
  await Daemon.startFor(t, { name: "next" });
  const known = await t.client.attach(node);
  assert.equal([known.already_attached, known.front], [true, front]);
  assert.is((await t.client.cbtInfo(front)).device, node);
  const rounds = checker.rounds;
  await until("the writer continues", () => checker.rounds > rounds);
  await t.daemon.stop();
  assert.equal([await tableOf(node), nodes()], before);

  // As an exchange leaves it whose program is killed between the kernel's refusal and the resume.
  const number = (await identityOf(node)).split(" ")[0].split(":").slice(-2).join(":");
  writeFileSync(`${STATE}/exchange-${number}`, "");
  await run(["dmsetup", "suspend", node]);
  await Daemon.startFor(t, { name: "after" });
  const waiting = checker.rounds;
  await until("the writer continues", () => checker.rounds > waiting);
  assert.match(await run(["dmsetup", "info", node]), /^State: +ACTIVE$/m);
  assert.equal([await tableOf(node), exchanges()], [before[0], []]);
  await checker.stop();
  await t.daemon.stop();
});

test("a device that the daemon writes to is not attached live", async (t) => {
  const { node, path } = await usedNode(t);
  const before = [await tableOf(node), nodes()];
  const directory = join(path, "kept-state");
  mkdirSync(directory);
  t.daemon = await Daemon.startFor(t, { args: ["--persistent-dir", directory] });
  assert.is(await codeOf(t.client.attach(node)), "DEVICE_BUSY");
  assert.equal([await tableOf(node), nodes()], before);
  await t.daemon.stop();
});

test.run();
