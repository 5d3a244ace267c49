/**
 * Files of the state directory that are damaged between two daemons: the next one names and ignores them, serves what
 * it can without them, and others notice nothing.
 */
import {
  copyFileSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { attempt, run, start } from "../lib/command.mjs";
import { Daemon } from "../lib/daemon.mjs";
import { alignedBuffer, assertContent, DeviceFile, writeDevice } from "../lib/device-file.mjs";
import { ramDisks } from "../lib/disks.mjs";
import { PieceWriter } from "../lib/piece-writer.mjs";
import { seededRandom } from "../lib/random.mjs";
import { scenario } from "../lib/scenario.mjs";
import { MIB, storeFolder } from "../lib/snapshots.mjs";

const test = scenario(import.meta.url, { daemon: false, sampledIn: 2 });
const SIZE_BYTES = 4 * MIB;
const STATE_MIB = 4;
const CHUNK_BYTES_MAX = 256 * 1024;
const TEST_LIMIT_MS = 900_000;
const random = seededRandom("damaged state");

/** Daemons one after the other, by hand, with one state directory on a tmpfs of its own. */
class Dynasty {
  #options;
  #t;
  folder;

  static async found(t) {
    const dynasty = new Dynasty();
    dynasty.#t = t;
    dynasty.folder = join(t.folder, t.name("state-"));
    mkdirSync(dynasty.folder);
    t.defer(() => rmdirSync(dynasty.folder));
    await run(["mount", "-t", "tmpfs", "-o", `size=${STATE_MIB}m`, "none", dynasty.folder]);
    t.defer(() => run(["umount", dynasty.folder]));
    const args = ["--state-dir", dynasty.folder];
    dynasty.#options = { socketPath: "/run/blksnap/other.sock", name: "other", args };
    await dynasty.next();
    return dynasty;
  }

  async next() {
    this.#t.daemon = await Daemon.start(this.#options);
  }

  async die() {
    this.#t.daemon.kill("SIGKILL");
    await this.#t.daemon.ended();
  }

  file(name) {
    return join(this.folder, name);
  }

  /** The only file whose name matches. */
  find(pattern) {
    const found = readdirSync(this.folder).filter((name) => pattern.test(name));
    assert.is(found.length, 1, `${pattern}: ${found}`);
    return this.file(found[0]);
  }
}

function flipBit(path, at) {
  const content = readFileSync(path);
  content[at] ^= 4;
  writeFileSync(path, content);
}

function zero(path) {
  writeFileSync(path, Buffer.alloc(readFileSync(path).length));
}

function truncate(path) {
  const content = readFileSync(path);
  writeFileSync(path, content.subarray(0, content.length / 2));
}

/** A tracked device, what it holds, and what its image shows while there is one. */
async function makeSubject(t, device) {
  const model = random.bytes(SIZE_BYTES);
  const { front } = await t.client.attach(device);
  await writeDevice(t, front, model);
  return { device, front, model };
}

async function takeSubject(t, subject, stores) {
  const options = { devices: [subject.device], stores, limitBytes: 16 * MIB };
  const { id } = await t.client.snapshotCreate(options);
  const { images } = await t.client.snapshotTake(id);
  Object.assign(subject, { id, image: images[0].image, frozen: Buffer.from(subject.model) });
}

async function write(t, { front, model }) {
  const writer = await PieceWriter.start(t, front, model, random);
  await writer.more(20);
  await writer.stop();
  assert.is(writer.errors, 0);
}

async function assertServed(t, subject) {
  await write(t, subject);
  await assertContent(t, subject.front, subject.model);
}

async function assertLost(t, { id, image }) {
  assert.not.ok((await t.client.snapshotCollect()).some((snapshot) => snapshot.id === id));
  assert.is.not((await attempt(["test", "-b", image])).status, 0, `${image} is still there`);
}

function trackerFiles(dynasty, id) {
  return [`tracker-${id}.record`, `tracker-${id}.record-copy`].map((name) => dynasty.file(name));
}

/** A snapshot again, and one wrong slot in its map; a record that is another's. */
async function damageSlot(t, dynasty, subjects, store) {
  const [, second] = subjects;
  await takeSubject(t, second, [store]);
  await write(t, second);
  await dynasty.die();
  flipBit(dynasty.find(/^area-/), 8192 + 3);
  copyFileSync(dynasty.file("tracker-2.record"), dynasty.file("tracker-1.record"));
  await dynasty.next();
  for (const subject of subjects) await assertServed(t, subject);
  assert.match(t.daemon.log(), /the copy of record tracker-1 is used: it is that of 2/);
  for (const { device, image } of (await t.client.status()).snapshots.flatMap((s) => s.devices)) {
    assert.is(device, second.device);
    await assertRightOrLost(t, image, second);
  }
}

/** A slot that is not in its store has nothing to show: its chunk cannot be read, and the snapshot says so. */
async function assertRightOrLost(t, image, { device, frozen }) {
  const file = await DeviceFile.open(t, image, { readOnly: true });
  const block = alignedBuffer(4096);
  t.expectKernelMessages(/I\/O error, dev ublkb\d+/);
  const lost = [];
  for (let at = 0; at < frozen.length; at += block.length) {
    try {
      await file.readInto(block, at);
      assert.is(block.compare(frozen, at, at + block.length), 0, `at ${at}`);
    } catch (error) {
      if (error.code !== "EIO") throw error;
      lost.push(at);
    }
  }
  await file.close();
  assert.ok(
    lost.every((at) => at < CHUNK_BYTES_MAX),
    `lost: ${lost}`,
  );
  const { error_code } = await t.client.snapshotInfo(device);
  assert.is(error_code !== 0, lost.length > 0);
}

test(
  "damaged records and maps",
  async (t) => {
    const disks = await ramDisks(t, 3, SIZE_BYTES);
    const stores = [storeFolder(t), storeFolder(t)];
    const dynasty = await Dynasty.found(t);
    const [first, second, third] = [
      await makeSubject(t, disks[0]),
      await makeSubject(t, disks[1]),
      await makeSubject(t, disks[2]),
    ];
    await takeSubject(t, first, [stores[0]]);
    await takeSubject(t, second, [stores[1]]);
    for (const subject of [first, second, third]) await write(t, subject);
    const generations = {};
    for (const { device } of [first, second]) {
      generations[device] = (await t.client.cbtInfo(device)).generation_id;
    }
    await dynasty.die();

    // The first device: half of its record, all of its map and of its snapshot's record.
    flipBit(dynasty.file("tracker-1.record"), 100);
    zero(dynasty.file("cbt-1"));
    const kept = [`snapshot-${first.id}.record`, `snapshot-${first.id}.record-copy`];
    for (const name of kept) zero(dynasty.file(name));
    // The third: all of its record.
    const records = trackerFiles(dynasty, 3).map((path) => [path, readFileSync(path)]);
    for (const [path] of records) truncate(path);
    const waiting = start(["dd", `if=${third.front}`, "of=/dev/null", "bs=64k", "iflag=direct"], {
      timeLimitMs: TEST_LIMIT_MS,
    });
    await dynasty.next();
    await assertServed(t, first);
    const info = await t.client.cbtInfo(first.device);
    assert.is.not(info.generation_id, generations[first.device]);
    assert.is(info.generation_reason, "tracking_broken");
    await assertLost(t, first);
    await assertServed(t, second);
    await assertContent(t, second.image, second.frozen);
    assert.is((await t.client.cbtInfo(second.device)).generation_id, generations[second.device]);
    const log = t.daemon.log();
    assert.match(log, /the copy of record tracker-1 is used/);
    assert.match(log, /map cbt-1 is not used/);
    assert.match(log, new RegExp(`record snapshot-${first.id} is not used`));
    assert.match(log, /record tracker-3 is not used/);
    assert.match(log, new RegExp(`the front ${third.front} has no usable record`));
    await dynasty.die();

    // The third device's record is restored; the second one's maps are another's, and cut.
    for (const [path, content] of records) writeFileSync(path, content);
    for (const name of kept) await run(["rm", dynasty.file(name)]);
    // Where its store was, only its record could tell.
    await run(["rm", join(stores[0], `blksnap-store-${first.id}-0`)]);
    copyFileSync(dynasty.file("cbt-1"), dynasty.file("cbt-2"));
    truncate(dynasty.find(new RegExp(`^area-${second.id}-`)));
    await dynasty.next();
    await waiting.succeed();
    for (const subject of [first, second, third]) await assertServed(t, subject);
    assert.is.not(
      (await t.client.cbtInfo(second.device)).generation_id,
      generations[second.device],
    );
    await assertLost(t, second);
    assert.match(t.daemon.log(), /map cbt-2 is not used: .*another device/);
    assert.match(t.daemon.log(), /snapshot is lost/);

    await damageSlot(t, dynasty, [first, second, third], stores[1]);
    for (const { id } of await t.client.snapshotCollect()) await t.client.snapshotDestroy(id);
    for (const { device } of [first, second, third]) await t.client.detach(device);
    await t.daemon.stop();
  },
  { timeLimitMs: TEST_LIMIT_MS },
);

async function codeOf(asking) {
  return asking.then(
    () => "nothing thrown",
    (error) => error.code,
  );
}

test(
  "a full state directory: what runs continues, what is new is refused",
  async (t) => {
    const disks = await ramDisks(t, 2, SIZE_BYTES);
    const stores = [storeFolder(t)];
    const dynasty = await Dynasty.found(t);
    const subject = await makeSubject(t, disks[0]);
    await takeSubject(t, subject, stores);
    const filler = dynasty.file("filler");
    await run(["dd", "if=/dev/zero", `of=${filler}`, "bs=4k"], { status: 1 });

    await assertServed(t, subject);
    await assertContent(t, subject.image, subject.frozen);
    assert.is(await codeOf(t.client.attach(disks[1])), "OUT_OF_MEMORY");
    const options = { devices: [], stores, limitBytes: 16 * MIB };
    assert.is(await codeOf(t.client.snapshotCreate(options)), "OUT_OF_MEMORY");
    await dynasty.die();
    await dynasty.next();
    await assertServed(t, subject);
    await assertContent(t, subject.image, subject.frozen);
    // Destroying must work: it frees space.
    await t.client.snapshotDestroy(subject.id);
    await run(["rm", filler]);
    const other = await makeSubject(t, disks[1]);
    await takeSubject(t, other, stores);
    await write(t, other);
    await assertContent(t, other.image, other.frozen);
    await t.client.snapshotDestroy(other.id);
    for (const { device } of [subject, other]) await t.client.detach(device);
    await t.daemon.stop();
  },
  { timeLimitMs: TEST_LIMIT_MS },
);

test.run();
