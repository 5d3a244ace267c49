/** A store of 16 MiB that overflows: the original is unharmed, and saved data is not lost. */
import * as assert from "uvu/assert";
import { PIECE_BYTES, unreadablePieces } from "../lib/damaged-image.mjs";
import { readDevice, writeDevice } from "../lib/device-file.mjs";
import { nullDisk, ramDisks } from "../lib/disks.mjs";
import { fio } from "../lib/fio.mjs";
import { IMAGE_GONE } from "../lib/kernel-log.mjs";
import { seededRandom } from "../lib/random.mjs";
import { scenario } from "../lib/scenario.mjs";
import { attach, MIB, memberStatus, pendingEvents, takeSnapshot } from "../lib/snapshots.mjs";

const test = scenario(import.meta.url);
const SIZE_BYTES = 24 * MIB;
const LIMIT_BYTES = 16 * MIB;
const ENOSPC = 28;

/** A device full of random bytes, a snapshot of it, and fio writing all over the front. */
async function overflow(t, device, load) {
  const { front } = await attach(t, device);
  const before = seededRandom(device).bytes(SIZE_BYTES);
  await writeDevice(t, front, before);
  const snapshot = await takeSnapshot(t, [device], { limitBytes: LIMIT_BYTES });
  const verified = { ioengine: "io_uring", iodepth: 8, direct: 1, verify: "crc32c" };
  await fio(front, { ...verified, ...load, size: SIZE_BYTES });
  return { id: snapshot.id, front, image: snapshot.images[0], before, destroy: snapshot.destroy };
}

async function assertEvents(t, id, device) {
  const found = await pendingEvents(t, id);
  const [noSpace] = found.filter(({ event }) => event === "no_space");
  assert.is(noSpace.limit_bytes, LIMIT_BYTES);
  assert.is(noSpace.allocated_bytes, LIMIT_BYTES);
  assert.ok(noSpace.used_bytes > 0 && noSpace.used_bytes <= LIMIT_BYTES);
  const corrupted = found.filter(({ event }) => event === "corrupted");
  assert.is(corrupted.length, 1, "one event per device");
  assert.is(corrupted[0].device, device);
  assert.is(corrupted[0].errno, ENOSPC);
  assert.ok(noSpace.sequence < corrupted[0].sequence, "the warning came after the loss");
}

async function assertLost(t, { id, image, before }, device) {
  const lost = await unreadablePieces(t, image, before);
  const status = await memberStatus(t, id, device);
  assert.is(status.error_code, -ENOSPC);
  assert.is((await t.client.snapshotInfo(device)).error_code, -ENOSPC);
  assert.is(lost.filter(Boolean).length * PIECE_BYTES, status.lost_bytes);
  assert.ok(status.lost_bytes > 0);
  for (const { offset_bytes: first, length_bytes: length } of status.lost_ranges) {
    const from = first / PIECE_BYTES;
    const pieces = lost.slice(from, from + length / PIECE_BYTES);
    assert.ok(pieces.every(Boolean), `byte ${first} is listed as lost and can be read`);
  }
  return status;
}

test.quick("sequential writes: events, error code, lost ranges, all else readable", async (t) => {
  t.expectKernelMessages(IMAGE_GONE);
  const [device] = await ramDisks(t, 1, SIZE_BYTES);
  const state = await overflow(t, device, { rw: "write", bs: "256k" });
  await assertEvents(t, state.id, device);
  const status = await assertLost(t, state, device);
  // Whatever the order in flight, all of the limit was used before anything was lost.
  assert.is(status.copied_bytes, LIMIT_BYTES);
  assert.is(status.lost_bytes, SIZE_BYTES - LIMIT_BYTES);
  assert.is(status.lost_ranges_total, status.lost_ranges.length);
  const listed = status.lost_ranges.reduce((sum, range) => sum + range.length_bytes, 0);
  assert.is(listed, status.lost_bytes);
});

test("a device that is short of slots gets the unused ones of another", async (t) => {
  t.expectKernelMessages(IMAGE_GONE);
  const [busy, idle] = await ramDisks(t, 2, SIZE_BYTES);
  const { front } = await attach(t, busy);
  await attach(t, idle);
  const { id, images } = await takeSnapshot(t, [busy, idle], { limitBytes: LIMIT_BYTES });
  await fio(front, { rw: "write", bs: "256k", ioengine: "io_uring", direct: 1, size: SIZE_BYTES });
  const [ofBusy, ofIdle] = [await memberStatus(t, id, busy), await memberStatus(t, id, idle)];
  assert.is(ofBusy.copied_bytes, LIMIT_BYTES);
  assert.is(ofIdle.copied_bytes, 0);
  assert.is(ofIdle.error_code, 0, "what it has not written is not lost");
  assert.equal(await readDevice(t, images[1], SIZE_BYTES), Buffer.alloc(SIZE_BYTES));
});

test("random 4 KiB writes: only unsaved blocks are lost", async (t) => {
  t.expectKernelMessages(IMAGE_GONE);
  const device = await nullDisk(t, { sizeMib: SIZE_BYTES / MIB });
  const state = await overflow(t, device, { rw: "randwrite", bs: "4k", io_size: "6m" });
  await assertEvents(t, state.id, device);
  await assertLost(t, state, device);
});

test("after destroy a new snapshot of the device is whole", async (t) => {
  const [device] = await ramDisks(t, 1, SIZE_BYTES);
  const { front, destroy } = await overflow(t, device, { rw: "write", bs: "256k" });
  await destroy();
  const now = await readDevice(t, front, SIZE_BYTES);
  const { id, images } = await takeSnapshot(t, [device]);
  await fio(front, { rw: "write", bs: "256k", direct: 1, size: "20m" });
  assert.ok(now.equals(await readDevice(t, images[0], SIZE_BYTES)));
  const { error_code: error, lost_bytes: lost } = await memberStatus(t, id, device);
  assert.equal({ error, lost }, { error: 0, lost: 0 });
});

test.run();
