/**
 * Disks that fail under a snapshot. Old data that cannot be read or written is lost alone, and never
 * at the cost of a write to the original (blksnap's 8000: reads of the original end in an error).
 */
import * as assert from "uvu/assert";
import { run } from "../lib/command.mjs";
import { unreadableRanges } from "../lib/damaged-image.mjs";
import { assertContent, DeviceFile, writeDevice } from "../lib/device-file.mjs";
import { failingDisk, mapped } from "../lib/device-mapper.mjs";
import { loopDisk } from "../lib/disks.mjs";
import { seededRandom } from "../lib/random.mjs";
import { scenario } from "../lib/scenario.mjs";
import { attach, MIB, memberStatus, pendingEvents, takeSnapshot } from "../lib/snapshots.mjs";

const test = scenario(import.meta.url, { sampledIn: 2 });
const SIZE_BYTES = 6 * MIB;
const BAD = { offsetBytes: 2 * MIB + 4096, lengthBytes: 3 * 4096 };
const BAD_RANGE = `${BAD.offsetBytes}+${BAD.lengthBytes}`;
const EIO = 5;
const KERNEL_MESSAGES = [
  /I\/O error,? (on )?(dev|device) (dm-|ublkb)\d+/,
  /Buffer I\/O error on dev(ice)? (dm-|ublkb)\d+/,
];
const random = seededRandom("disk errors");

/** A full disk with a part that can be made to fail, and a snapshot of it. */
async function takenOver(t, fault) {
  t.expectKernelMessages(KERNEL_MESSAGES);
  const disk = await failingDisk(t, await loopDisk(t, SIZE_BYTES), BAD, fault);
  const { front } = await attach(t, disk.path);
  const before = random.bytes(SIZE_BYTES);
  await writeDevice(t, front, before);
  const snapshot = await takeSnapshot(t, [disk.path]);
  return { disk, front, before, id: snapshot.id, image: snapshot.images[0] };
}

async function corruptedEvents(t, id) {
  return (await pendingEvents(t, id)).filter(({ event }) => event === "corrupted");
}

test("8000: old data that cannot be read is lost alone, and the writes go through", async (t) => {
  const { disk, front, before, id, image } = await takenOver(t, "error_reads");
  await disk.fail();
  const after = random.bytes(SIZE_BYTES);
  await writeDevice(t, front, after);
  await disk.heal();
  assert.equal(await unreadableRanges(t, image, before), [BAD_RANGE]);
  await assertContent(t, front, after);
  const status = await memberStatus(t, id, disk.path);
  assert.is(status.error_code, -EIO);
  assert.is(status.lost_bytes, BAD.lengthBytes);
  assert.equal(status.lost_ranges, [
    { offset_bytes: BAD.offsetBytes, length_bytes: BAD.lengthBytes },
  ]);
  const events = await corruptedEvents(t, id);
  assert.equal(
    events.map(({ device, errno: error }) => ({ device, error })),
    [{ device: disk.path, error: EIO }],
  );
});

test("while an original fails, its image fails as well, and loses nothing", async (t) => {
  const { disk, before, id, image } = await takenOver(t, "error_reads");
  await disk.fail();
  assert.equal(await unreadableRanges(t, image, before), [BAD_RANGE]);
  await disk.heal();
  assert.equal(await unreadableRanges(t, image, before), []);
  assert.is((await memberStatus(t, id, disk.path)).lost_bytes, 0);
});

test("a write that the original refuses fails for the writer; the image is whole", async (t) => {
  const { disk, front, before, id, image } = await takenOver(t, "error_writes");
  await disk.fail();
  const file = await DeviceFile.open(t, front);
  const refusal = await file
    .write(before.subarray(0, 4096), BAD.offsetBytes)
    .catch((error) => error);
  assert.is(refusal.code, "EIO");
  await file.write(before.subarray(0, 4096), 0);
  await file.close();
  await disk.heal();
  assert.equal(await unreadableRanges(t, image, before), []);
  assert.is((await memberStatus(t, id, disk.path)).lost_bytes, 0);
});

test("detach reports once that the last writes cannot reach the original", async (t) => {
  t.expectKernelMessages(KERNEL_MESSAGES, /lost async page write/);
  const disk = await failingDisk(t, await loopDisk(t, SIZE_BYTES), BAD, "error_writes");
  const { front } = await t.client.attach(disk.path);
  await disk.fail();
  // Through the page cache: a program that writes so without fsync gets no error.
  await run(["dd", "if=/dev/urandom", `of=${front}`, "bs=4k", "count=2", "seek=513"]);
  const error = await t.client.detach(disk.path).catch((reason) => reason);
  assert.is(error.code, "DEVICE_FAILED", String(error));
  assert.match(error.message, /did not all reach/);
  assert.is((await t.client.status()).trackers.length, 1);
  await t.client.detach(disk.path);
  assert.equal((await t.client.status()).trackers, []);
});

test("a store that fails loses old data; the writes succeed", async (t) => {
  t.expectKernelMessages(KERNEL_MESSAGES);
  const store = await loopDisk(t, 8 * MIB);
  const [goodSectors, sectors] = [(2 * MIB) / 512, (8 * MIB) / 512];
  const { path: failing } = await mapped(t, [
    `0 ${goodSectors} linear ${store} 0`,
    `${goodSectors} ${sectors - goodSectors} error`,
  ]);
  const device = await loopDisk(t, SIZE_BYTES);
  const { front } = await attach(t, device);
  const before = random.bytes(SIZE_BYTES);
  await writeDevice(t, front, before);
  const { id, images } = await takeSnapshot(t, [device], { stores: [failing] });
  const after = random.bytes(SIZE_BYTES);
  await writeDevice(t, front, after);
  await assertContent(t, front, after);
  const lost = await unreadableRanges(t, images[0], before);
  const lostBytes = lost.reduce((sum, range) => sum + Number(range.split("+")[1]), 0);
  assert.is(lostBytes, SIZE_BYTES - 2 * MIB);
  const status = await memberStatus(t, id, device);
  assert.equal([status.lost_bytes, status.error_code], [lostBytes, -EIO]);
  assert.is((await corruptedEvents(t, id)).length, 1);
});

test.run();
