/** How many slots an area asks for, and which it gives back. */
import { DiffArea } from "@blksnap/engine";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { makeMap } from "./whole-maps.js";

test("an area that uses slots faster than they arrive asks for twice as many, up to a bound", () => {
  const area = new DiffArea(makeMap().map, {
    lowWaterSlots: 2,
    wantedSlots: 4,
    wantedSlotsMax: 16,
  });
  let next = 0;
  const grant = (left: number): number[] => {
    while (area.slots.freeCount > left) area.slots.acquire();
    area.slots.asked = true;
    area.grantSlots(next, area.wantedSlots);
    next += area.wantedSlots;
    return [area.lowWaterSlots, area.wantedSlots];
  };
  assert.equal(grant(0), [4, 8]);
  assert.equal(grant(3), [4, 8], "the answer came before half of what was left had been used");
  assert.equal(grant(2), [8, 16]);
  assert.equal(grant(0), [8, 16]);
  const given: number[][] = [];
  const before = area.slots.freeCount;
  area.giveBackSlots((firstSlot, count) => given.push([firstSlot, count]));
  assert.equal([area.lowWaterSlots, area.wantedSlots], [2, 4]);
  assert.equal(given, [[next - before / 2, before / 2]]);
  area.grantSlots(900, 1);
  assert.equal([area.lowWaterSlots, area.wantedSlots], [2, 4], "it had not asked");
});

test("a repeated denial answers no request, and does not deny granted slots", () => {
  const area = new DiffArea(makeMap().map, { lowWaterSlots: 2, wantedSlots: 4 });
  const { slots } = area;
  const state = () => [slots.asked, slots.deniedErrno];
  slots.asked = true;
  area.denySlots(28);
  area.updateDenial(110);
  assert.equal(state(), [false, 110]);
  area.grantSlots(0, 1);
  area.updateDenial(28);
  assert.equal(state(), [false, 0]);
  // The area asked for more before this grant arrived.
  slots.asked = true;
  area.updateDenial(28);
  assert.equal(state(), [true, 0]);
  area.grantSlots(1, 4);
  assert.is(slots.freeCount, 5);
});

test("an area gives back half of its slots, the last ones, and never uses them", () => {
  const area = new DiffArea(makeMap().map, { extentsMax: 3 });
  const { slots } = area;
  area.grantSlots(40, 2);
  area.grantSlots(96, 3);
  area.grantSlots(7, 1);
  const give = (): number[][] => {
    const given: number[][] = [];
    area.giveBackSlots((firstSlot, count) => given.push([firstSlot, count]));
    return given;
  };
  assert.equal(give(), [
    [7, 1],
    [97, 2],
  ]);
  assert.is(slots.freeCount, 3);
  assert.is(slots.countOutside(1), 0);
  assert.equal(give(), [
    [96, 1],
    [41, 1],
  ]);
  assert.equal(give(), [[40, 1]], "the last one too: who asks needs it now");
  assert.equal(give(), []);
  assert.is(slots.acquire(), -1);
  assert.is(slots.extentsFree, 3);
});

test.run();
