import type { DiffResponse } from "@blksnap/api";
import { answerFor } from "@blksnap/api";
import { CbtMap, CbtReason } from "@blksnap/engine";
import { uuidText } from "@blksnap/linux-block";
import { Dice } from "@blksnap/testing";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { dirtyContext } from "../../../data-plane/dist/dirty-context.js";
import { markedRanges, readMap } from "../../dist/operations/cbt-operations.js";
import { changesSince as asked, type Changes } from "../../dist/operations/diff.js";
import { asControlError } from "../../dist/system/errors.js";

const BLOCK = 65536;
/** Four and a half blocks: the last one is short. */
const CAPACITY = 4.5 * BLOCK;

function map(): CbtMap {
  const buffer = new ArrayBuffer(CbtMap.byteLength(CAPACITY, 16));
  const generation = new Uint8Array(16).fill(7);
  return CbtMap.create(buffer, { capacityBytes: CAPACITY, blockShift: 16, generation });
}

/** The ranges of all batches of the diff. */
async function changesSince(
  cbt: CbtMap,
  since: number,
): Promise<Omit<Changes, "ranges"> & { ranges: DiffResponse["ranges"] }> {
  const { ranges, ...changes } = await asked(cbt, since, "/dev/x");
  const all: DiffResponse["ranges"] = [];
  for await (const batch of ranges) all.push(...batch);
  return { ...changes, ranges: all };
}

async function codeOf(answer: Promise<unknown>): Promise<string> {
  return answer.then(
    () => "none",
    (error: { code: string }) => error.code,
  );
}

function write(cbt: CbtMap, offset: number, length: number): void {
  cbt.markRequest(Float64Array.of(offset), Float64Array.of(length), 0);
}

test("changes are joined into ranges and cut at the device's end", async () => {
  const cbt = map();
  write(cbt, 10, 512);
  write(cbt, BLOCK, BLOCK);
  write(cbt, 4 * BLOCK, 512);
  cbt.switch();
  const changes = await changesSince(cbt, 0);
  assert.equal(
    changes.ranges.map((range) => [range.offset_bytes, range.length_bytes]),
    [
      [0, 2 * BLOCK],
      [4 * BLOCK, 0.5 * BLOCK],
    ],
  );
  assert.is(changes.changed_blocks, 3);
  assert.is(changes.changed_bytes, 2.5 * BLOCK);
  assert.is(changes.changes_number, 1);
  assert.is(changes.generation_id, "07070707-0707-0707-0707-070707070707");
});

test("discarded blocks have ranges of their own, even next to changed ones", async () => {
  const cbt = map();
  write(cbt, 0, CAPACITY);
  cbt.recordDiscard(BLOCK, 2 * BLOCK);
  cbt.recordDiscard(4 * BLOCK, 0.5 * BLOCK);
  cbt.switch();
  const changes = await changesSince(cbt, 0);
  assert.equal(
    changes.ranges.map((range) => [range.offset_bytes, range.length_bytes, range.kind]),
    [
      [0, BLOCK, "changed"],
      [BLOCK, 2 * BLOCK, "discarded"],
      [3 * BLOCK, BLOCK, "changed"],
      [4 * BLOCK, 0.5 * BLOCK, "discarded"],
    ],
  );
  assert.is(changes.changed_blocks, 5);
  assert.equal((await changesSince(cbt, 1)).ranges, []);
});

test("since counts takes, and a future one is refused", async () => {
  const cbt = map();
  write(cbt, 0, 512);
  cbt.switch();
  write(cbt, 2 * BLOCK, 512);
  cbt.switch();
  assert.equal(
    (await changesSince(cbt, 1)).ranges.map((range) => range.offset_bytes),
    [2 * BLOCK],
  );
  assert.equal((await changesSince(cbt, 2)).ranges, []);
  assert.is(await codeOf(changesSince(cbt, 3)), "CBT_NUMBER_UNKNOWN");
});

/** What the NBD context of the same number lists, asked for in pieces of any size. */
function dirtyRanges(cbt: CbtMap, since: number, dice: Dice): [number, number][] {
  const context = dirtyContext(`qemu:dirty-bitmap:since-${since}`, cbt);
  assert.ok(context !== undefined);
  const ranges: [number, number][] = [];
  for (let at = 0; at < CAPACITY; ) {
    const length = context.runBytes(at, Math.min(CAPACITY, at + 512 * (1 + dice.below(400))));
    assert.ok(length > 0);
    const last = ranges.at(-1);
    if (context.flags !== 0 && last !== undefined && last[0] + last[1] === at) last[1] += length;
    else if (context.flags !== 0) ranges.push([at, length]);
    at += length;
  }
  return ranges;
}

test("an NBD client's dirty bitmap has the ranges of the diff, for any history", async () => {
  const seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 31));
  console.log(`SEED=${seed}`);
  const dice = new Dice(seed);
  const cbt = map();
  for (let number = 1; number <= 200; number++) {
    for (let writes = dice.below(4); writes > 0; writes--) {
      const offset = 512 * dice.below(CAPACITY / 512);
      const length = Math.min(CAPACITY - offset, 512 * (1 + dice.below(200)));
      if (dice.below(4) === 0) cbt.recordDiscard(offset, length);
      else write(cbt, offset, length);
    }
    cbt.switch();
    const since = dice.below(number + 1);
    const told = (await changesSince(cbt, since)).ranges;
    const joined: [number, number][] = [];
    for (const { offset_bytes: at, length_bytes: length } of told) {
      const last = joined.at(-1);
      if (last !== undefined && last[0] + last[1] === at) last[1] += length;
      else joined.push([at, length]);
    }
    assert.equal(dirtyRanges(cbt, since, dice), joined, `since ${since} of ${number}`);
  }
});

test("a part of the map can be read, but nothing beyond its end", () => {
  const cbt = map();
  write(cbt, 3 * BLOCK, 512);
  cbt.switch();
  assert.equal([...readMap(cbt, 2, 3)], [0, 1, 0]);
  assert.throws(
    () => readMap(cbt, 3, 3),
    (error: Error & { code?: string }) => error.code === "CBT_RANGE",
  );
});

test("ranges to mark must lie on the device", () => {
  const info = map().info();
  const last = { offset_bytes: CAPACITY - 512, length_bytes: 512 };
  assert.equal(markedRanges([last], info, "/dev/x"), [CAPACITY - 512, 512]);
  assert.throws(
    () => markedRanges([{ offset_bytes: CAPACITY, length_bytes: 512 }], info, "/dev/x"),
    (error: Error & { code?: string }) => error.code === "MARK_RANGE",
  );
});

/** The error code and errno that a client gets for the failure. */
function toldOf(call: () => unknown): readonly [string, string | null] {
  try {
    call();
  } catch (error) {
    const { name, errno_name } = answerFor(asControlError(error)).error;
    return [name, errno_name];
  }
  return ["none", null];
}

test("a map that lost marks: EFAULT for readers, EINVAL for markers, until the next take", async () => {
  const cbt = map();
  const range = { offset_bytes: 0, length_bytes: 512 };
  const reading = () => readMap(cbt, 0, 1);
  const marking = () => markedRanges([range], cbt.info(), "/dev/x");
  cbt.corrupt();
  assert.equal(toldOf(reading), ["CBT_CORRUPTED", "EFAULT"]);
  const failure = await changesSince(cbt, 0).catch((error: unknown) => error);
  const throwIt = (): never => {
    throw failure;
  };
  assert.equal(toldOf(throwIt), ["CBT_CORRUPTED", "EFAULT"]);
  assert.equal(toldOf(marking), ["CBT_CORRUPTED", "EINVAL"]);
  const before = cbt.info().generation.slice();
  cbt.switch();
  assert.equal([toldOf(reading)[0], toldOf(marking)[0]], ["none", "none"]);
  assert.not.equal(cbt.info().generation, before);
});

for (const [what, meanwhile] of [
  ["a new generation", (cbt: CbtMap) => cbt.reset(CbtReason.ROLLOVER)],
  ["a take", (cbt: CbtMap) => cbt.switch()],
] as const) {
  test(`${what} between reading generation and map gives a consistent pair`, async () => {
    for (const moment of ["before", "after"]) {
      const cbt = map();
      write(cbt, 0, CAPACITY);
      cbt.switch();
      const readFrozen = cbt.readFrozen.bind(cbt);
      let armed = true;
      cbt.readFrozen = (...parameters) => {
        const now = armed;
        armed = false;
        if (now && moment === "before") meanwhile(cbt);
        readFrozen(...parameters);
        if (now && moment === "after") meanwhile(cbt);
      };
      const changes = await changesSince(cbt, 0);
      const { generation, changesNumber } = cbt.info();
      assert.is(changes.generation_id, uuidText(generation));
      assert.is(changes.changes_number, changesNumber);
      assert.is(changes.changed_blocks, what === "a take" ? 5 : 0);
    }
  });
}

/** A map with more blocks than one turn reads; every second one changed before the first take. */
function large(): CbtMap {
  const capacityBytes = 5 * 65536 * BLOCK;
  const buffer = new ArrayBuffer(CbtMap.byteLength(capacityBytes, 16));
  const cbt = CbtMap.create(buffer, {
    capacityBytes,
    blockShift: 16,
    generation: new Uint8Array(16).fill(7),
  });
  for (let block = 0; block < cbt.blockCount; block += 2) cbt.markBlocks(block, 1);
  cbt.switch();
  return cbt;
}

/** Calls `act` at each slice of the map that is read, while the slice is half done. */
function atSlice(cbt: CbtMap, act: (slice: number) => void): void {
  const readFrozen = cbt.readFrozen.bind(cbt);
  let slice = 0;
  cbt.readFrozen = (...read) => {
    readFrozen(...read);
    act(++slice);
  };
}

test("a take while a diff is read: the whole answer belongs to one take", async () => {
  const cbt = large();
  atSlice(cbt, (slice) => {
    if (slice !== 3) return;
    for (let block = 1; block < cbt.blockCount; block += 2) cbt.markBlocks(block, 1);
    cbt.switch();
  });
  const { changes_number, changed_blocks, ranges } = await changesSince(cbt, 0);
  assert.is(changes_number, 2);
  assert.is(changed_blocks, cbt.blockCount);
  assert.is(ranges.length, 1);
});

test("writes and takes after the start of a diff do not change its answer", async () => {
  const cbt = large();
  const { changed_blocks, ranges } = await asked(cbt, 0, "/dev/x");
  let told = 0;
  for await (const batch of ranges) {
    told += batch.length;
    cbt.markBlocks(0, cbt.blockCount);
    cbt.switch();
  }
  assert.is(changed_blocks, cbt.blockCount / 2);
  assert.is(told, changed_blocks);
});

test("endless takes, a reset map, and a detach fail the diff with a named error", async () => {
  const busy = large();
  atSlice(busy, () => busy.switch());
  assert.is(await codeOf(changesSince(busy, 0)), "CBT_BUSY");
  const corrupted = large();
  atSlice(corrupted, (slice) => slice === 2 && corrupted.corrupt());
  assert.is(await codeOf(changesSince(corrupted, 0)), "CBT_CORRUPTED");
  const gone = large();
  let slices = 0;
  atSlice(gone, (slice) => {
    slices = slice;
  });
  Object.defineProperty(gone, "isMapped", { get: () => slices < 3 });
  assert.is(await codeOf(changesSince(gone, 0)), "NOT_ATTACHED");
});

test.run();
