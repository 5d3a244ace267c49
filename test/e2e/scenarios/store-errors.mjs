/**
 * Errors of the store and of the original, by dm-error and dm-flakey, while the front is written: the
 * original is never harmed, and each block of the image is right or reads as I/O error.
 */
import { writeFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import * as assert from "uvu/assert";
import { run } from "../lib/command.mjs";
import { PIECE_BYTES, unreadablePieces } from "../lib/damaged-image.mjs";
import { assertContent, writeDevice } from "../lib/device-file.mjs";
import { nullDisk, ramDisks } from "../lib/disks.mjs";
import { makeFileSystem, mount } from "../lib/file-systems.mjs";
import { MappedDisk } from "../lib/mapped-disk.mjs";
import { PieceWriter } from "../lib/piece-writer.mjs";
import { seededRandom } from "../lib/random.mjs";
import { scenario } from "../lib/scenario.mjs";
import { attach, MIB, memberStatus, pendingEvents, takeSnapshot } from "../lib/snapshots.mjs";
import { until } from "../lib/wait.mjs";

const test = scenario(import.meta.url, { sampledIn: 2 });
/** A few turns of good and bad seconds. */
const FLAKY_MS = 4_000;
const SIZE_BYTES = 8 * MIB;
const STORE_BYTES = 32 * MIB;
const WRITES = 60;
const EIO = 5;
/** What the kernel has to say about disks that fail. */
const DISK_ERRORS = [
  /I\/O error, dev (dm-|ublkb)\d+/,
  /Buffer I\/O error on dev(ice)? (dm-|ublkb)\d+/,
  /EXT4-fs.*(dm-\d+|error|warning)/,
  /JBD2: .*error/i,
  /Aborting journal on device dm-\d+/,
];

/** An original and a store, each on a disk that can be made to fail, and a snapshot with a writer. */
async function arrange(t, makeStore = async (disk) => disk.path, ofStore = undefined) {
  t.expectKernelMessages(DISK_ERRORS);
  const [first, ram] = await ramDisks(t, 2, STORE_BYTES);
  const second = ofStore ?? ram;
  const original = await MappedDisk.create(t, first, SIZE_BYTES);
  const storeDisk = await MappedDisk.create(t, second, STORE_BYTES);
  const random = seededRandom(original.path);
  const model = random.bytes(SIZE_BYTES);
  const store = await makeStore(storeDisk);
  const { front, detach } = await attach(t, original.path);
  await writeDevice(t, front, model);
  const options = { stores: [store], limitBytes: STORE_BYTES / 2 };
  const snapshot = await takeSnapshot(t, [original.path], options);
  const frozen = Buffer.from(model);
  const writer = await PieceWriter.start(t, front, model, random);
  return { t, original, storeDisk, front, detach, snapshot, frozen, model, writer };
}

/** Ends the writer; then every byte of the front is right, and of the image what is not lost. */
async function judge(
  { t, original, front, snapshot, frozen, model, writer },
  { storeIsWhole = true } = {},
) {
  await writer.stop();
  await assertContent(t, front, model);
  const lost = await unreadablePieces(t, snapshot.images[0], frozen);
  const status = await memberStatus(t, snapshot.id, original.path);
  const unreadableBytes = lost.filter(Boolean).length * PIECE_BYTES;
  if (storeIsWhole) assert.is(status.lost_bytes, unreadableBytes);
  else assert.ok(status.lost_bytes <= unreadableBytes, "a lost block can be read");
  assert.is(status.error_code, status.lost_bytes > 0 ? -EIO : 0);
  return { lostPieces: lost.filter(Boolean).length, status };
}

async function assertCorruptedOnce(t, { id }) {
  const corrupted = (await pendingEvents(t, id)).filter(({ event }) => event === "corrupted");
  assert.equal(
    corrupted.map(({ errno }) => errno),
    [EIO],
  );
}

/** Ends everything: earlier errors must not prevent that. */
async function end({ t, original, snapshot, detach, model }) {
  await snapshot.destroy();
  await detach();
  await assertContent(t, original.path, model);
}

test("while a store fails, writes continue; data saved before and after reads correctly", async (t) => {
  const setting = await arrange(t);
  const { writer, storeDisk } = setting;
  await writer.more(WRITES);
  await storeDisk.break();
  await writer.more(WRITES);
  await storeDisk.heal();
  await writer.more(WRITES);
  const { lostPieces, status } = await judge(setting);
  assert.is(writer.errors, 0);
  assert.ok(lostPieces > 0, "nothing was lost while the store failed");
  assert.ok(status.copied_bytes > 0, "nothing was saved");
  await assertCorruptedOnce(t, setting.snapshot);
  await end(setting);
});

test("writes continue while a store's writes fail every other second", async (t) => {
  const setting = await arrange(t);
  const { writer, storeDisk } = setting;
  await storeDisk.flake("error_writes", 1, 1);
  await sleep(FLAKY_MS);
  const hasLost = async () =>
    (await memberStatus(t, setting.snapshot.id, setting.original.path)).lost_bytes > 0;
  await until("a write to the store has failed", hasLost);
  await writer.more(WRITES);
  await storeDisk.heal();
  const { lostPieces } = await judge(setting);
  assert.is(writer.errors, 0);
  assert.ok(lostPieces > 0, "no write to the store failed");
  await end(setting);
});

test("a store on a file system whose disk fails can be closed", async (t) => {
  const setting = await arrange(t, async (disk) => {
    await makeFileSystem("ext4", disk.path);
    return (await mount(t, disk.path)).path;
  });
  const { writer, storeDisk } = setting;
  await writer.more(WRITES);
  await storeDisk.break();
  await writer.more(2 * WRITES);
  // The disk works again; the file system has shut itself down, and loses what it cannot find.
  await storeDisk.heal();
  const { lostPieces } = await judge(setting, { storeIsWhole: false });
  assert.is(writer.errors, 0);
  assert.ok(lostPieces > 0, "nothing was lost while the disk failed");
  await end(setting);
});

test("cached writes of a store that cannot be written back are lost, and never read as other data", async (t) => {
  // The original's blocks are smaller than those of the disk, so there is no direct I/O to files on that.
  const coarse = await nullDisk(t, { sizeMib: STORE_BYTES / MIB, blockBytes: 4096 });
  const makeStore = async (disk) => {
    await makeFileSystem("ext4", disk.path);
    return (await mount(t, disk.path)).path;
  };
  const setting = await arrange(t, makeStore, coarse);
  const { writer, storeDisk, snapshot, original } = setting;
  await writer.more(WRITES);
  await storeDisk.break();
  await writer.more(WRITES);
  await run(["sync"], { status: "any" });
  await storeDisk.heal();
  const hasLost = async () => (await memberStatus(t, snapshot.id, original.path)).lost_bytes > 0;
  await until("what was not written is lost", hasLost);
  writeFileSync("/proc/sys/vm/drop_caches", "3");
  const { lostPieces } = await judge(setting, { storeIsWhole: false });
  assert.is(writer.errors, 0);
  assert.ok(lostPieces > 0, "nothing was lost while the disk failed");
  await end(setting);
});

test("writes repair an original that cannot be read, and their old data is lost", async (t) => {
  const setting = await arrange(t);
  const { writer, original } = setting;
  await writer.more(WRITES);
  await original.flake("error_reads", 0, 1);
  await writer.more(WRITES);
  await original.heal();
  await writer.more(WRITES);
  const { lostPieces } = await judge(setting);
  assert.is(writer.errors, 0);
  assert.ok(lostPieces > 0, "no old data was lost");
  await end(setting);
});

test("writers of a failing original see the same errors as without blksnap", async (t) => {
  const setting = await arrange(t);
  const { writer, original } = setting;
  await writer.more(WRITES);
  await original.break();
  await writer.more(WRITES);
  assert.ok(writer.errors > 0, "no write failed");
  await original.heal();
  // Those in flight.
  await writer.more(WRITES);
  const errors = writer.errors;
  await writer.more(WRITES);
  assert.is(writer.errors, errors);
  await judge(setting);
  await end(setting);
});

test("an image stays correct while the original's writes fail every other second", async (t) => {
  const setting = await arrange(t);
  const { writer, original } = setting;
  await original.flake("error_writes", 1, 1);
  await sleep(FLAKY_MS);
  await until("a write has failed", () => writer.errors > 0);
  await original.heal();
  assert.ok(writer.errors > 0, "no write failed");
  const { lostPieces } = await judge(setting);
  assert.is(lostPieces, 0);
  await end(setting);
});

test.run();
