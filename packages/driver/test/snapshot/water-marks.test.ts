/** When a device asks for slots: early enough for random writers, and for no more than its share. */
import { DiffArea, DiffAreaMap } from "@blksnap/engine";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { waterMarks } from "../../dist/snapshot/water-marks.js";

const SLOTS = 8192;
const geometry = { capacityBytes: 2 ** 20, logicalBlockBytes: 512, chunkShift: 18, blockShift: 12 };
const map = DiffAreaMap.create(new ArrayBuffer(DiffAreaMap.byteLength(geometry)), geometry);

/**
 * In each turn, so many writers want a slot each; an answer arrives so many turns after its request. Returns how many
 * of them had to wait, and how many slots were unused at most.
 */
function write(marks: ReturnType<typeof waterMarks>, writers: number, answerTurns: number) {
  const area = new DiffArea(map, marks);
  let granted = 0;
  const grant = (count: number): void => {
    area.grantSlots(granted, count);
    granted += count;
  };
  grant(marks.wantedSlots);
  let asked: { wanted: number; turn: number } | undefined;
  let waited = 0;
  let unusedMost = 0;
  for (let turn = 0; granted - area.slots.freeCount < SLOTS; turn++) {
    if (asked !== undefined && turn >= asked.turn + answerTurns) {
      grant(asked.wanted);
      asked = undefined;
    }
    unusedMost = Math.max(unusedMost, area.slots.freeCount);
    for (let writer = 0; writer < writers; writer++) {
      if (area.slots.acquire() < 0) waited++;
      if (area.slots.asked || area.slots.freeCount > area.lowWaterSlots) continue;
      area.slots.asked = true;
      asked = { wanted: area.wantedSlots, turn };
    }
  }
  return { waited, unusedMost };
}

test("32 random writers do not wait for slots, from the first write on", () => {
  const marks = waterMarks(Infinity, 1);
  for (const turns of [1, 2, 3]) assert.is(write(marks, 32, turns).waited, 0);
  assert.ok(write(marks, 32, 8).waited < 512, "and less than once for each of 16 in any case");
});

test("a device keeps at most its share of the limit unused, and half as much more", () => {
  for (const limit of [64, 1024, 16_384]) {
    for (const members of [1, 4]) {
      const marks = waterMarks(limit, members);
      const share = Math.max(2, limit / 16 / members);
      assert.ok(marks.wantedSlotsMax <= share, `${limit} slots for ${members}`);
      for (const turns of [1, 3, 8]) {
        const { unusedMost } = write(marks, 32, turns);
        assert.ok(unusedMost <= share * 1.5, `${unusedMost} unused, of ${limit} for ${members}`);
      }
    }
  }
});

test.run();
