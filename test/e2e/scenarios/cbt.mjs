/** The CBT map is exactly what was written: against a model, over several takes. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { run } from "../lib/command.mjs";
import { alignedBuffer, DeviceFile } from "../lib/device-file.mjs";
import { loopDisk, nullDisk } from "../lib/disks.mjs";
import { makeFileSystem, mount } from "../lib/file-systems.mjs";
import { seededRandom, seedsOr } from "../lib/random.mjs";
import { scenario } from "../lib/scenario.mjs";
import { attach, MIB, takeSnapshot } from "../lib/snapshots.mjs";

const test = scenario(import.meta.url);
/** Not a multiple of the CBT's block of 64 KiB. */
const SIZE_BYTES = 16 * MIB + 9 * 512;
const BLOCK_BYTES = 65536;
const BLOCKS = Math.ceil(SIZE_BYTES / BLOCK_BYTES);

/** The two tables as the kernel module has them: one that is written, one frozen at the last take. */
class CbtModel {
  written = new Uint8Array(BLOCKS);
  frozen = new Uint8Array(BLOCKS);
  active = 1;

  #mark(table, offset, length, number) {
    const last = Math.floor((offset + length - 1) / BLOCK_BYTES);
    for (let block = Math.floor(offset / BLOCK_BYTES); block <= last; block++) {
      table[block] = Math.max(table[block], number);
    }
  }

  write(offset, length) {
    this.#mark(this.written, offset, length, this.active);
  }

  /** A write to the image, or a mark by hand: changed now and in the next map. */
  mark(offset, length) {
    this.#mark(this.written, offset, length, this.active);
    this.#mark(this.frozen, offset, length, this.active - 1);
  }

  take() {
    this.frozen = Uint8Array.from(this.written);
    this.active++;
  }

  /** The blocks that changed after the snapshot of that number, as ranges. */
  changedSince(number) {
    const ranges = [];
    this.frozen.forEach((changed, block) => {
      if (changed <= number) return;
      const first = block * BLOCK_BYTES;
      const end = Math.min(first + BLOCK_BYTES, SIZE_BYTES);
      const last = ranges.at(-1);
      if (last && last.offset_bytes + last.length_bytes === first) {
        last.length_bytes = end - last.offset_bytes;
      } else ranges.push({ offset_bytes: first, length_bytes: end - first });
    });
    return ranges;
  }
}

async function writeSomewhere(file, random, writes, onWrite) {
  for (let count = 0; count < writes; count++) {
    const sectors = 1 + random.below(random.once(4) ? 700 : 9);
    const first = random.below(SIZE_BYTES / 512 - sectors);
    const buffer = alignedBuffer(sectors * 512);
    await file.write(buffer, first * 512);
    onWrite(first * 512, buffer.length);
  }
}

async function assertMap(t, device, model) {
  const { info, map } = await t.client.readCbtMap(device);
  assert.is(info.block_bytes, BLOCK_BYTES);
  assert.is(info.block_count, BLOCKS);
  assert.is(info.capacity_bytes, SIZE_BYTES);
  assert.is(info.changes_number, model.active - 1);
  assert.equal([...map], [...model.frozen]);
  return info;
}

async function assertDiffs(t, device, model) {
  for (let since = 0; since < model.active; since++) {
    const { ranges, changed_blocks: blocks } = await t.client.diff(device, since);
    const plain = ranges.map(({ offset_bytes, length_bytes }) => ({ offset_bytes, length_bytes }));
    assert.equal(plain, model.changedSince(since));
    assert.is(blocks, model.frozen.filter((number) => number > since).length);
  }
}

for (const seed of seedsOr(["one"])) {
  test.quick(`map and diff over three takes, image writes, marks (SEED=${seed})`, async (t) => {
    const random = seededRandom(seed);
    const model = new CbtModel();
    const device = await loopDisk(t, SIZE_BYTES);
    const { front } = await attach(t, device);
    const file = await DeviceFile.open(t, front);
    const first = await assertMap(t, device, model);
    assert.is(first.generation_reason, "first_attach");
    for (let round = 0; round < 3; round++) {
      await writeSomewhere(file, random, 12, (at, length) => model.write(at, length));
      const snapshot = await takeSnapshot(t, [device]);
      model.take();
      await assertMap(t, device, model);
      // What is written while the snapshot is held shows only after the next take.
      await writeSomewhere(file, random, 8, (at, length) => model.write(at, length));
      await assertMap(t, device, model);
      const image = await DeviceFile.open(t, snapshot.images[0]);
      await writeSomewhere(image, random, 2, (at, length) => model.mark(at, length));
      await image.close();
      const marked = { offset_bytes: round * 3000 * 512, length_bytes: 200 * 512 };
      await t.client.markDirty(device, [marked]);
      model.mark(marked.offset_bytes, marked.length_bytes);
      const info = await assertMap(t, device, model);
      assert.is(info.generation_id, first.generation_id);
      await assertDiffs(t, device, model);
      await snapshot.destroy();
      await assertMap(t, device, model);
    }
  });
}

test("reads change nothing, and a range beyond the end is refused whole", async (t) => {
  const model = new CbtModel();
  const device = await loopDisk(t, SIZE_BYTES);
  const { front } = await attach(t, device);
  await run(["dd", `if=${front}`, "of=/dev/null", "bs=1M"]);
  const beyond = [
    { offset_bytes: 0, length_bytes: 4096 },
    { offset_bytes: SIZE_BYTES - 512, length_bytes: 1024 },
  ];
  const refusal = await t.client.markDirty(device, beyond).catch((error) => error);
  assert.is(refusal.code, "MARK_RANGE");
  await takeSnapshot(t, [device]);
  model.take();
  await assertMap(t, device, model);
});

test("a new attach begins a new generation", async (t) => {
  const device = await loopDisk(t, SIZE_BYTES);
  const { detach } = await attach(t, device);
  const before = await t.client.cbtInfo(device);
  await detach();
  await attach(t, device);
  const after = await t.client.cbtInfo(device);
  assert.is.not(after.generation_id, before.generation_id);
  assert.is(after.changes_number, 0);
  const refusal = await t.client.diff(device, 0, before.generation_id).catch((error) => error);
  assert.is(refusal.code, "CBT_GENERATION_CHANGED");
});

test("marking a file marks the blocks under it", async (t) => {
  const device = await nullDisk(t, { sizeMib: 32 });
  const { front } = await attach(t, device);
  await makeFileSystem("ext4", front);
  const { path } = await mount(t, front);
  writeFileSync(join(path, "file"), Buffer.alloc(2 * MIB, 1));
  await run(["sync", "-f", path]);
  const first = await takeSnapshot(t, [device]);
  await first.destroy();
  const second = await takeSnapshot(t, [device]);
  const since = (await t.client.cbtInfo(device)).changes_number - 1;
  const { ranges } = await t.client.markDirtyFile(join(path, "file"));
  const bytes = ranges.reduce((sum, range) => sum + range.length_bytes, 0);
  assert.is(bytes, 2 * MIB);
  const { map } = await t.client.readCbtMap(device);
  for (const { offset_bytes: start, length_bytes: length } of ranges) {
    const block = Math.floor(start / BLOCK_BYTES);
    const end = Math.ceil((start + length) / BLOCK_BYTES);
    assert.ok(map.subarray(block, end).every((number) => number > since));
  }
  await second.destroy();
});

test.run();
