/**
 * The daemon killed between every two steps of what it does, once at each of its fault points: what
 * was begun is done or undone, nothing of it is left over, and every byte is right.
 *
 * Most kills meet a writer in the middle of its requests. A run takes one eighth of the points, by its seed, as each
 * death costs an emulated guest twenty seconds, and a sample the half of that; POINTS=REGULAR-EXPRESSION in the
 * environment picks others, and POINTS=. all of them.
 */
import { BlksnapClientError } from "@blksnap/client";
import * as assert from "uvu/assert";
import { FAULT_POINTS } from "../../../packages/data-plane/dist/fault-points.js";
import { assertCovered, changedBlocks } from "../lib/changes.mjs";
import { run } from "../lib/command.mjs";
import { Daemon } from "../lib/daemon.mjs";
import { alignedBuffer, assertContent, DeviceFile, writeDevice } from "../lib/device-file.mjs";
import { ramDisks } from "../lib/disks.mjs";
import { Faults } from "../lib/faults.mjs";
import { assertInventory } from "../lib/inventory.mjs";
import { seededRandom } from "../lib/random.mjs";
import { note, progress, scenario } from "../lib/scenario.mjs";
import { MIB, storeFolder } from "../lib/snapshots.mjs";
import { killServing, servingPid, successor } from "../lib/successor.mjs";
import { until } from "../lib/wait.mjs";

const SIZE_BYTES = 12 * MIB;
const CHUNK_BYTES = 256 * 1024;
const CHUNKS = SIZE_BYTES / CHUNK_BYTES;
/** So few that slots run short soon, and portions so small that stores grow often. */
const LIMIT_BYTES = 128 * MIB;
const PORTION_BYTES = 2 * MIB;
const WRITES = 16;
const WRITE_BYTES = 20 * 1024;
/** For every second write: its copy may run beside it. */
const SHORT_BYTES = 10 * 1024;
const TEST_LIMIT_MS = 3_000_000;
const ANSWER_LIMIT_MS = 300_000;
const { POINTS, SAMPLE, SEED = String(Date.now()) } = process.env;
const PARTS = SAMPLE === undefined ? 8 : 16;

const test = scenario(import.meta.url, { daemon: false });

const UNKNOWN_IMAGE_GONE = [
  /I\/O error, dev ublkb\d+, .*\(READ\)/,
  /Buffer I\/O error on dev ublkb\d+, .* async page read/,
];

/** Two devices under attack, with the models of what they and their images hold. */
class Setting {
  constructor(t, faults, devices, store, random) {
    Object.assign(this, { t, faults, devices, store, random });
    this.models = devices.map(() => Buffer.alloc(SIZE_BYTES));
    /** Of each device the last take: its number and generation, and what it froze. */
    this.takes = [];
    this.diffs = 0;
  }

  /** Asks for something that the daemon does not survive, and waits until the next one serves. */
  async dieAt(point, ask) {
    const error = await this.#dieDuring(point, ask);
    const lost = error === undefined || error instanceof BlksnapClientError;
    if (!lost) throw error;
  }

  /** The same for reads and writes, which must not notice. */
  async survive(point, work) {
    const error = await this.#dieDuring(point, work);
    if (error !== undefined) throw error;
  }

  async #dieDuring(point, work) {
    const pid = await servingPid(this.t);
    await this.faults.arm(point);
    const ended = work().then(
      () => undefined,
      (error) => error,
    );
    await this.faults.met();
    await successor(this.t, pid);
    return ended;
  }

  /** Asks until a daemon answers: it may be about to die. */
  status() {
    const ask = () => this.t.client.status().catch(() => undefined);
    return until("a daemon answers", ask, ANSWER_LIMIT_MS);
  }

  async front(index) {
    const { trackers } = await this.status();
    return trackers.find(({ device }) => device === this.devices[index])?.front;
  }

  async attachAll() {
    for (const device of this.devices) await this.t.client.attach(device);
  }

  async detachAll() {
    const { trackers } = await this.t.client.status();
    for (const { device } of trackers) await this.t.client.detach(device);
  }

  create() {
    const { devices, store } = this;
    return this.t.client.snapshotCreate({ devices, stores: [store], limitBytes: LIMIT_BYTES });
  }

  async snapshot() {
    const { snapshots } = await this.status();
    assert.ok(snapshots.length <= 1, "there is one snapshot at most");
    return snapshots[0];
  }

  /** A snapshot that is taken, whatever there is now. */
  async taken() {
    const present = await this.snapshot();
    if (present?.taken) return present;
    const { id } = present ?? (await this.create());
    await this.t.client.snapshotTake(id);
    this.frozen = this.models.map((model) => Buffer.from(model));
    for (const index of this.devices.keys()) await this.#assertDiff(index);
    return this.snapshot();
  }

  /** Since the last take of this device, unless another generation has begun. */
  async #assertDiff(index) {
    const { client } = this.t;
    const before = this.takes[index];
    const info = await client.cbtInfo(this.devices[index]);
    const { generation_id: generation, changes_number: number, block_bytes: blockBytes } = info;
    this.takes[index] = { generation, number, content: this.frozen[index] };
    if (before?.generation !== generation) return;
    const { ranges } = await client.diff(this.devices[index], before.number);
    assertCovered(changedBlocks(before.content, this.frozen[index], blockBytes), ranges);
    this.diffs++;
  }

  /** Writes one piece into each of some chunks, all at once, from the given chunk on. */
  async write(index, firstChunk = this.random.below(CHUNKS)) {
    const path = await this.front(index);
    await this.writeTo(path, this.models[index], firstChunk);
  }

  async writeTo(path, model, firstChunk) {
    const { t, random } = this;
    const file = await DeviceFile.open(t, path);
    const writes = Array.from({ length: WRITES }, async (_, number) => {
      const lengthBytes = number % 2 === 0 ? WRITE_BYTES : SHORT_BYTES;
      const buffer = alignedBuffer(lengthBytes);
      random.fill(buffer);
      const inChunk = random.below((CHUNK_BYTES - lengthBytes) / 512) * 512;
      const offset = ((firstChunk + number) % CHUNKS) * CHUNK_BYTES + inChunk;
      await file.write(buffer, offset);
      buffer.copy(model, offset);
    });
    await Promise.all(writes);
    await file.close();
  }

  /** Every byte of fronts and images. */
  async assertRight() {
    await assertInventory(this.t);
    const { trackers } = await this.t.client.status();
    for (const { device, front } of trackers) {
      await assertContent(this.t, front, this.models[this.devices.indexOf(device)]);
    }
    const snapshot = await this.snapshot();
    if (!snapshot?.taken) return;
    for (const { device, image } of snapshot.devices) {
      await assertContent(this.t, image, this.frozen[this.devices.indexOf(device)]);
    }
  }
}

async function arrange(t) {
  const faults = new Faults(t);
  const devices = await ramDisks(t, 2, SIZE_BYTES);
  const store = storeFolder(t);
  const args = ["--supervise", "--diff-storage-minimum", String(PORTION_BYTES)];
  t.daemon = await Daemon.start({ args, env: faults.environment });
  note(`SEED=${SEED}`);
  const setting = new Setting(t, faults, devices, store, seededRandom(SEED));
  for (const [index, device] of devices.entries()) {
    setting.random.fill(setting.models[index]);
    await writeDevice(t, device, setting.models[index]);
  }
  return setting;
}

/** Ends everything, which must always work, and checks the originals. */
async function conclude(setting) {
  const snapshot = await setting.snapshot();
  if (snapshot) await setting.t.client.snapshotDestroy(snapshot.id);
  await setting.detachAll();
  for (const [index, device] of setting.devices.entries()) {
    await assertContent(setting.t, device, setting.models[index]);
  }
}

/** Operations, by the first word of the fault points that they pass. */
const OPERATIONS = {};

/** The first point from which an operation counts as done. */
const DONE_FROM = {
  attach: "attach.front-live",
  detach: "detach.front-stopped",
  create: "create.created",
};

function isDone(operation, point) {
  return FAULT_POINTS.indexOf(point) >= FAULT_POINTS.indexOf(DONE_FROM[operation]);
}

OPERATIONS["attach"] = async (setting, point) => {
  const [device] = setting.devices;
  await setting.dieAt(point, () => setting.t.client.attach(device));
  const front = await setting.front(0);
  assert.is(front !== undefined, isDone("attach", point), `attached: ${front}`);
  await setting.assertRight();
  const again = await setting.t.client.attach(device);
  assert.is(again.already_attached, isDone("attach", point));
  await setting.write(0);
  await setting.t.client.detach(device);
};

OPERATIONS["detach"] = async (setting, point) => {
  const [device] = setting.devices;
  await setting.t.client.attach(device);
  await setting.write(0);
  await setting.dieAt(point, () => setting.t.client.detach(device));
  const front = await setting.front(0);
  assert.is(front === undefined, isDone("detach", point), `attached: ${front}`);
};

OPERATIONS["create"] = async (setting, point) => {
  await setting.attachAll();
  await setting.dieAt(point, () => setting.create());
  const snapshot = await setting.snapshot();
  assert.is(snapshot !== undefined, isDone("create", point), "a snapshot is there");
  if (snapshot) await setting.t.client.snapshotDestroy(snapshot.id);
};

OPERATIONS["add"] = async (setting, point) => {
  const [first, second] = setting.devices;
  const { client } = setting.t;
  const stores = [setting.store];
  const { id } = await client.snapshotCreate({ devices: [first], stores, limitBytes: LIMIT_BYTES });
  await setting.dieAt(point, () => client.snapshotAdd(id, second));
  const { devices } = await setting.snapshot();
  assert.equal(devices.map(({ device }) => device).sort(), setting.devices);
};

OPERATIONS["take"] = async (setting, point) => {
  // Of an image that nobody knows yet, whose partitions the killed daemon was looking for.
  setting.t.expectKernelMessages(UNKNOWN_IMAGE_GONE);
  await setting.attachAll();
  const { id } = (await setting.snapshot()) ?? (await setting.create());
  // What is written while it is taken must not matter for the other device's image.
  const writing = setting.write(0);
  setting.frozen = [undefined, Buffer.from(setting.models[1])];
  await setting.dieAt(point, () => setting.t.client.snapshotTake(id));
  await writing;
  const snapshot = await setting.snapshot();
  assert.is(snapshot.id, id);
  assert.is(snapshot.taken, point === "take.taken", `taken after ${point}`);
  if (!snapshot.taken) return;
  const [image] = snapshot.devices.filter(({ device }) => device === setting.devices[0]);
  setting.frozen[0] = await run(["cat", image.image], { output: "bytes" });
  await setting.write(0);
  await setting.write(1);
};

for (const operation of ["copy", "slots", "growth"]) {
  OPERATIONS[operation] = async (setting, point) => {
    // Chunks of which nothing is saved yet.
    const present = await setting.snapshot();
    if (present) await setting.t.client.snapshotDestroy(present.id);
    await setting.attachAll();
    const { devices } = await setting.taken();
    await setting.survive(point, async () => {
      await Promise.all([setting.write(0, 0), setting.write(1, WRITES)]);
      await setting.write(0, WRITES);
      const [{ image, device }] = devices;
      const frozen = setting.frozen[setting.devices.indexOf(device)];
      if (point !== "slots.freed") return;
      await run(["blkdiscard", "--offset", "0", "--length", String(4 * CHUNK_BYTES), image]);
      frozen.fill(0, 0, 4 * CHUNK_BYTES);
    });
  };
}

OPERATIONS["image-write"] = async (setting, point) => {
  await setting.attachAll();
  const { devices } = await setting.taken();
  const [{ image, device }] = devices;
  const index = setting.devices.indexOf(device);
  await setting.survive(point, () => setting.writeTo(image, setting.frozen[index], 0));
};

OPERATIONS["destroy"] = async (setting, point) => {
  await setting.attachAll();
  const { id } = await setting.taken();
  await setting.write(0);
  await setting.dieAt(point, () => setting.t.client.snapshotDestroy(id));
  // Nothing of it has ended by then.
  const left = point === "destroy.withdrawn" ? id : undefined;
  assert.is((await setting.snapshot())?.id, left);
  await setting.write(1);
};

OPERATIONS["recover"] = async (setting, point) => {
  await setting.attachAll();
  const { id } = await setting.taken();
  const begun = point === "recover.discarded" ? ["destroy.begun", point] : [point];
  await setting.faults.arm(...begun);
  const writing = Promise.all([setting.write(0), setting.write(1)]);
  if (begun.length === 1) await killServing(setting.t);
  else await setting.t.client.snapshotDestroy(id).catch(() => undefined);
  await setting.faults.met();
  await writing;
  const snapshot = await setting.snapshot();
  assert.is(snapshot?.id, begun.length === 1 ? id : undefined);
};

/** A stop of the daemon with a persistent snapshot: scenarios/persistent.mjs. */
const ELSEWHERE = /^suspend\./;
const here = FAULT_POINTS.filter((point) => !ELSEWHERE.test(point));

function pointsOfThisRun() {
  if (POINTS !== undefined) return here.filter((point) => new RegExp(POINTS).test(point));
  const part = seededRandom(SEED).below(PARTS);
  return here.filter((_, index) => index % PARTS === part);
}

const points = pointsOfThisRun();

test(
  `killed at ${points.length} of ${here.length} points, and every byte is right`,
  async (t) => {
    const setting = await arrange(t);
    let last = "";
    for (const point of points) {
      const [operation] = point.split(".");
      try {
        if (operation !== last) await conclude(setting);
        last = operation;
        await OPERATIONS[operation](setting, point);
        await setting.assertRight();
      } catch (error) {
        throw new Error(`${point}: ${error.stack}`);
      }
      progress(`${point}: done or undone`);
    }
    await conclude(setting);
    note(`${points.length} deaths; diff was checked ${setting.diffs} times`);
    await t.daemon.stop();
  },
  { timeLimitMs: TEST_LIMIT_MS },
);

test.run();
