/**
 * Live attach: the front is put under a device-mapper node while its file system is mounted and written to,
 * and taken out again. Users must not be affected. Deaths of the daemon: live-deaths.mjs.
 */
import { closeSync, openSync, readdirSync, truncateSync } from "node:fs";
import { basename } from "node:path";
import { apartProgram, LockedHelper } from "@blksnap/uring";
import * as assert from "uvu/assert";
import { attempt, run } from "../lib/command.mjs";
import { ctl } from "../lib/ctl.mjs";
import { mapped, sectorsOf } from "../lib/device-mapper.mjs";
import { imageFile, loopDisk, ramDisks } from "../lib/disks.mjs";
import {
  checkFileSystem,
  checksums,
  makeFileSystem,
  mount,
  mountImage,
} from "../lib/file-systems.mjs";
import { Checker, codeOf, identityOf, nameOf, nodes, tableOf, usedNode } from "../lib/live.mjs";
import { note, scenario } from "../lib/scenario.mjs";
import { MIB, takeSnapshot } from "../lib/snapshots.mjs";
import { until } from "../lib/wait.mjs";

const EBUSY = 16;
const ESTALE = 116;
const LONG = { timeLimitMs: 1_200_000 };
/** POINTS=. has the larger one, and more than one round. */
const isThorough = process.env.POINTS !== undefined;
const TYPES = isThorough ? ["zeroed ext4", "xfs"] : ["zeroed ext4"];
const ROUNDS = isThorough ? 3 : 1;

const test = scenario(import.meta.url);

for (const type of TYPES) {
  test(
    `${type} mounted and written to while attached, snapshotted and detached`,
    async (t) => {
      const { node, path, unmount } = await usedNode(t, type);
      const before = [await tableOf(node), await identityOf(node), nodes()];
      const checker = new Checker(t, path);
      for (let round = 0; round < ROUNDS; round++) {
        await attachedLife(t, { type, node, path, checker, before });
        await ctl("detach", "--device", node);
        assert.equal([await tableOf(node), await identityOf(node), nodes()], before);
      }
      await checker.stop();
      note(`${checker.rounds} rounds of fio --verify`);
      const sums = await checksums(path);
      await unmount();
      await checkFileSystem(type === "xfs" ? "xfs" : "ext4", node);
      const again = await mount(t, node);
      assert.is(await checksums(again.path), sums);
    },
    LONG,
  );
}

async function attachedLife(t, { type, node, path, checker, before }) {
  const { stdout } = await ctl("attach", "--device", node);
  assert.match(stdout, new RegExp(`^front=/dev/ublkb\\d+\\nlive=${node}$`, "m"));
  assert.is(await identityOf(node), before[1]);
  assert.not.equal(await tableOf(node), before[0]);
  const kind = type === "xfs" ? "xfs" : "ext4";
  const { images, destroy } = await takeSnapshot(t, [node]);
  const folder = await mountImage(t, kind, images[0], ["ro"]);
  const sumOf = (cwd) => run(["md5sum", "kept"], { cwd });
  assert.is(await sumOf(folder.path), await sumOf(path));
  await folder.unmount();
  await checkFileSystem(kind, images[0]);
  const frozen = await run(["md5sum", images[0]]);
  const rounds = checker.rounds;
  await until("the writer continues", () => checker.rounds > rounds);
  assert.is(await run(["md5sum", images[0]]), frozen);
  await destroy();
}

test("when a node gets another table, tracking ends with a reason", async (t) => {
  t.expectKernelMessages(/I\/O error, dev ublkb/);
  const [disk] = await ramDisks(t, 1, 16 * MIB);
  const { path: node, load } = await mapped(t, [`0 ${await sectorsOf(disk)} linear ${disk} 0`]);
  const before = [await tableOf(node), nodes()];
  await t.client.attach(node, { kind: "live" });
  const { id, images, destroy } = await takeSnapshot(t, [node], { stores: ["memory:"] });
  await run(["cmp", images[0], node]);
  // It leads there again at once, but writes in between are unknown.
  const spliced = await tableOf(node);
  await load([before[0].trim()]);
  await load([spliced.trim()]);
  // Each answer knows it at once, and by the node that users know.
  assert.is((await t.client.snapshotInfo(node)).error_code, -ESTALE);
  const events = await t.client.listEvents(id);
  const told = events.map(({ event, errno, major, minor }) => [event, errno, `${major}:${minor}`]);
  const { trackers } = await t.client.status();
  assert.equal(told, [["corrupted", ESTALE, trackers[0].device_number]]);
  assert.equal([trackers[0].splice.node, trackers[0].splice.state], [node, "lost"]);
  const words = ["--noheadings", "--separator", ":", "-o", "major,minor"];
  const number = (await run(["dmsetup", "info", "-c", ...words, node])).trim();
  assert.is(trackers[0].device_number, number);
  assert.is(await codeOf(t.client.cbtInfo(node)), "SPLICE_LOST");
  assert.is(await codeOf(t.client.diff(node, 0)), "SPLICE_LOST");
  const direct = ["dd", `if=${images[0]}`, "of=/dev/null", "bs=1M", "iflag=direct"];
  assert.is((await attempt(direct)).status, 1);
  await destroy();
  await t.client.detach(node);
  assert.equal([await tableOf(node), nodes()], before);
});

test("a node that is renamed stays tracked, one that has grown is tracked in a new generation", async (t) => {
  const [disk] = await ramDisks(t, 1, 16 * MIB);
  const whole = await sectorsOf(disk);
  const { path: node, load } = await mapped(t, [`0 ${whole / 2} linear ${disk} 0`]);
  const before = nodes();
  await t.client.attach(node, { kind: "live" });
  const { generation_id: first } = await t.client.cbtInfo(node);
  const other = `${node}-renamed`;
  await run(["dmsetup", "rename", node, `${basename(node)}-renamed`]);
  const renamed = await t.client.cbtInfo(other);
  assert.equal([renamed.device, renamed.generation_id], [other, first]);
  await until("its clone is renamed", () => nodes().includes(`${basename(other)}-blksnap`));
  await run(["dmsetup", "rename", other, basename(node)]);
  assert.is((await t.client.cbtInfo(node)).device, node);

  const grown = `0 ${whole} linear ${disk} 0`;
  await load([grown]);
  await until("it is tracked again", async () => {
    const { trackers } = await t.client.status();
    const [{ cbt, splice, capacity_bytes } = {}] = trackers;
    if (cbt === undefined || splice?.state !== "on" || cbt.generation_id === first) return false;
    assert.equal([cbt.generation_reason, capacity_bytes], ["capacity_changed", whole * 512]);
    return true;
  });
  const { images, destroy } = await takeSnapshot(t, [node], { stores: ["memory:"] });
  await run(["cmp", images[0], node]);
  await destroy();
  await t.client.detach(node);
  assert.equal(
    [(await tableOf(node)).trim().split(" ").slice(0, 3).join(" "), nodes()],
    [`0 ${whole} linear`, before],
  );
});

test("an exchange that the kernel refuses leaves the node as it was, and not suspended", async (t) => {
  t.expectKernelMessages(/too small for target|loop\d+: detected capacity change/);
  const file = imageFile(t, 16 * MIB);
  const [disk, other] = [await loopDisk(t, 16 * MIB), await loopDisk(t, 16 * MIB, { file })];
  const { path: node } = await mapped(t, [`0 ${await sectorsOf(disk)} linear ${disk} 0`]);
  const before = [await tableOf(node), nodes()];
  await run(["dmsetup", "load", node], { input: `0 ${await sectorsOf(other)} linear ${other} 0` });
  // It is checked again when it becomes the active one.
  truncateSync(file, 8 * MIB);
  await run(["losetup", "--set-capacity", other]);
  const number = (await identityOf(node)).split(" ")[0].split(":").slice(-2);
  const { status, stderr } = await attempt([apartProgram, "0", "exchange", ...number]);
  assert.is(status, 1);
  assert.match(stderr, /^the exchange of tables: /);
  const info = await run(["dmsetup", "info", node]);
  assert.match(info, /^State: +ACTIVE$/m);
  assert.match(info, /^Tables present: +LIVE$/m);
  await run(["dd", `if=${node}`, "of=/dev/null", "bs=1M", "iflag=direct"]);
  assert.equal([await tableOf(node), nodes()], before);
});

test("an exchange does not end another program's suspension", async (t) => {
  const [disk, other] = await ramDisks(t, 2, 16 * MIB);
  const sectors = await sectorsOf(disk);
  const { path: node, suspend, resume } = await mapped(t, [`0 ${sectors} linear ${disk} 0`]);
  const before = [await tableOf(node), nodes()];
  const number = (await identityOf(node)).split(" ")[0].split(":").slice(-2);
  await run(["dmsetup", "load", node], { input: `0 ${sectors} linear ${other} 0` });
  await suspend();
  for (const verb of ["exchange", "return"]) {
    const { status, stderr } = await attempt([apartProgram, "0", verb, ...number]);
    assert.equal([status, stderr.split(":")[0]], [2, "another program has suspended it"]);
  }
  const info = await run(["dmsetup", "info", node]);
  assert.match(info, /^State: +SUSPENDED$/m);
  assert.match(info, /^Tables present: +LIVE & INACTIVE$/m);
  await run(["dmsetup", "clear", node]);
  await resume();
  assert.equal([await tableOf(node), nodes()], before);
});

test("resuming a node neither activates nor drops another program's table", async (t) => {
  const [disk, other] = await ramDisks(t, 2, 16 * MIB);
  const sectors = await sectorsOf(disk);
  const { path: node } = await mapped(t, [`0 ${sectors} linear ${disk} 0`]);
  const number = (await identityOf(node)).split(" ")[0].split(":").slice(-2);
  const helper = new LockedHelper();
  t.defer(() => helper.end());
  const ask = (verb, ...more) => helper.ask([verb, ...number, ...more], 60_000);
  const tables = async () => [
    (await ask("dm-table", "live"))[1],
    (await ask("dm-table", "waiting"))[1],
  ];
  const own = (await tableOf(node)).trim();
  assert.equal(await tables(), [own, undefined]);
  assert.equal(await ask("dm-resume"), ["0"]);
  assert.equal(await ask("dm-clear", "any"), ["0"]);
  await run(["dmsetup", "suspend", node]);
  await run(["dmsetup", "load", node], { input: `0 ${sectors} linear ${other} 0` });
  const [, waiting] = await tables();
  assert.match(waiting, `0 ${sectors} linear `);
  assert.not.equal(waiting, own);
  assert.equal(await ask("dm-resume"), [`${-EBUSY}`]);
  assert.equal(await ask("dm-clear", `${own}\n`), [`${-EBUSY}`]);
  assert.match(await run(["dmsetup", "info", node]), /^State: +SUSPENDED$/m);
  assert.equal(await tables(), [own, waiting]);
  assert.equal(await ask("dm-clear", `${waiting}\n`), ["0"]);
  assert.equal(await ask("dm-resume"), ["0"]);
  assert.match(await run(["dmsetup", "info", node]), /^State: +ACTIVE$/m);
  assert.equal(await tables(), [own, undefined]);
});

/** The kernel's node of the only clone. */
function cloneNode() {
  const names = readdirSync("/sys/block").filter((name) => nameOf(name)?.endsWith("-blksnap"));
  assert.is(names.length, 1);
  return `/dev/${names[0]}`;
}

test("a device that cannot be attached live is refused by name, and nothing is changed", async (t) => {
  const [disk, other] = await ramDisks(t, 2, 64 * MIB);
  await makeFileSystem("ext4", disk);
  const mounted = await mount(t, disk);
  const busy = await ctl("attach", "--device", disk);
  assert.is(busy.status, 1);
  assert.match(busy.stderr, "device-mapper linear node");
  // As packages/daemon/test/config.test.ts has it.
  assert.match(busy.stderr, `device = [{ device = "${disk}" }]`);
  assert.is(await codeOf(t.client.attach(disk, { kind: "live" })), "LIVE_UNSUPPORTED");
  await mounted.unmount();

  const half = (await sectorsOf(other)) / 2;
  const parts = [`0 ${half} linear ${other} ${half}`, `${half} ${half} linear ${other} 0`];
  const { path: node, load, suspend, resume } = await mapped(t, parts);
  const front = await t.client.attach(node, { kind: "front" });
  assert.equal([front.attach_kind, front.live], ["front", null]);
  await t.client.detach(node);
  assert.is((await t.client.attach(node)).attach_kind, "front");
  await t.client.detach(node);

  const live = { kind: "live" };
  const refused = (wanted) => codeOf(t.client.attach(node, { ...live, ...wanted }));
  const before = [await tableOf(node), nodes()];
  const assertAsBefore = async () => assert.equal([await tableOf(node), nodes()], before);
  assert.is(await refused({ persistent: true }), "LIVE_UNSUPPORTED");
  await suspend();
  assert.is(await refused(), "LIVE_UNSUPPORTED");
  await resume();
  await run(["dmsetup", "load", node], { input: parts.join("\n") });
  assert.is(await refused(), "LIVE_UNSUPPORTED");
  await run(["dmsetup", "clear", node]);
  await assertAsBefore();
  await load([parts[0], `${half} ${half} error`]);
  assert.is(await refused(), "LIVE_UNSUPPORTED");
  await load(parts);

  const first = await t.client.attach(node, live);
  for (const path of [node, first.front, cloneNode()]) {
    const known = await t.client.attach(path, live);
    assert.equal([known.already_attached, known.live], [true, node], path);
  }
  assert.is(await codeOf(t.client.attach(other)), "DEVICE_OVERLAPS");
  // What is in the front's own cache would be written over what the node's users write afterwards.
  const raw = openSync(first.front, "r+");
  assert.is(await codeOf(t.client.detach(node)), "FRONT_IN_USE");
  closeSync(raw);
  await t.client.detach(first.front);
  await assertAsBefore();
});

test.run();
