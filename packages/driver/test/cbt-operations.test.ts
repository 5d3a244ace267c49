import { CbtMap, CbtReason } from "@blksnap/engine";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { changesSince, markedRanges, readMap } from "../dist/cbt/operations.js";
import { answerFor } from "../dist/control/control-error.js";
import { asControlError } from "../dist/system/errors.js";
import { uuidText } from "../dist/uuid.js";

const BLOCK = 65536;
/** Four blocks and a half: the last one is short. */
const CAPACITY = 4.5 * BLOCK;

function map(): CbtMap {
  const buffer = new ArrayBuffer(CbtMap.byteLength(CAPACITY, 16));
  const generation = new Uint8Array(16).fill(7);
  return CbtMap.create(buffer, { capacityBytes: CAPACITY, blockShift: 16, generation });
}

function write(cbt: CbtMap, offset: number, length: number): void {
  cbt.markRequest(Float64Array.of(offset), Float64Array.of(length), 0);
}

test("changes are joined into ranges and cut at the device's end", () => {
  const cbt = map();
  write(cbt, 10, 512);
  write(cbt, BLOCK, BLOCK);
  write(cbt, 4 * BLOCK, 512);
  cbt.switch();
  const changes = changesSince(cbt, 0, "/dev/x");
  assert.equal(
    changes.ranges.map((range) => [range.offset_sectors, range.count_sectors]),
    [
      [0, (2 * BLOCK) / 512],
      [(4 * BLOCK) / 512, (0.5 * BLOCK) / 512],
    ],
  );
  assert.is(changes.changed_blocks, 3);
  assert.is(changes.changed_bytes, 2.5 * BLOCK);
  assert.is(changes.changes_number, 1);
  assert.is(changes.generation_id, "07070707-0707-0707-0707-070707070707");
});

test("discarded blocks are ranges of their own, also beside changed ones", () => {
  const cbt = map();
  write(cbt, 0, CAPACITY);
  cbt.recordDiscard(BLOCK, 2 * BLOCK);
  cbt.recordDiscard(4 * BLOCK, 0.5 * BLOCK);
  cbt.switch();
  const changes = changesSince(cbt, 0, "/dev/x");
  assert.equal(
    changes.ranges.map((range) => [range.offset_sectors, range.count_sectors, range.kind]),
    [
      [0, 128, "changed"],
      [128, 256, "discarded"],
      [384, 128, "changed"],
      [512, 64, "discarded"],
    ],
  );
  assert.is(changes.changed_blocks, 5);
  assert.equal(changesSince(cbt, 1, "/dev/x").ranges, []);
});

test("since counts takes, and one that was not yet is refused", () => {
  const cbt = map();
  write(cbt, 0, 512);
  cbt.switch();
  write(cbt, 2 * BLOCK, 512);
  cbt.switch();
  assert.equal(
    changesSince(cbt, 1, "/dev/x").ranges.map((range) => range.offset_sectors),
    [(2 * BLOCK) / 512],
  );
  assert.equal(changesSince(cbt, 2, "/dev/x").ranges, []);
  assert.throws(
    () => changesSince(cbt, 3, "/dev/x"),
    (error: Error & { code?: string }) => error.code === "CBT_NUMBER_UNKNOWN",
  );
});

test("a part of the map is read, none beyond its end", () => {
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
  const sectors = CAPACITY / 512;
  const last = { offset_sectors: sectors - 1, count_sectors: 1 };
  assert.equal(markedRanges([last], info, "/dev/x"), [CAPACITY - 512, 512]);
  assert.throws(
    () => markedRanges([{ offset_sectors: sectors, count_sectors: 1 }], info, "/dev/x"),
    (error: Error & { code?: string }) => error.code === "MARK_RANGE",
  );
});

/** Name and errno with which a client is told the failure. */
function toldOf(call: () => unknown): readonly [string, string | null] {
  try {
    call();
  } catch (error) {
    const { name, errno_name } = answerFor(asControlError(error)).error;
    return [name, errno_name];
  }
  return ["none", null];
}

test("a map that lost marks: EFAULT for who reads, EINVAL for who marks, until the next take", () => {
  const cbt = map();
  const range = { offset_sectors: 0, count_sectors: 1 };
  const reading = () => readMap(cbt, 0, 1);
  const marking = () => markedRanges([range], cbt.info(), "/dev/x");
  cbt.corrupt();
  assert.equal(toldOf(reading), ["CBT_CORRUPTED", "EFAULT"]);
  assert.equal(
    toldOf(() => changesSince(cbt, 0, "/dev/x")),
    ["CBT_CORRUPTED", "EFAULT"],
  );
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
  test(`${what} between the generation and the map gives what belongs together`, () => {
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
      const changes = changesSince(cbt, 0, "/dev/x");
      const { generation, changesNumber } = cbt.info();
      assert.is(changes.generation_id, uuidText(generation));
      assert.is(changes.changes_number, changesNumber);
      assert.is(changes.changed_blocks, what === "a take" ? 5 : 0);
    }
  });
}

test("a map that changes at every look is said to be busy", () => {
  const cbt = map();
  const readFrozen = cbt.readFrozen.bind(cbt);
  cbt.readFrozen = (...parameters) => {
    readFrozen(...parameters);
    cbt.switch();
  };
  assert.throws(
    () => changesSince(cbt, 0, "/dev/x"),
    (error: { code?: string }) => error.code === "CBT_BUSY",
  );
});

test.run();
