import type { AreaId } from "@blksnap/data-plane";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { StoreCuts } from "../../dist/snapshot/store-cuts.js";
import type { Tracker } from "../../dist/tracker/tracker.js";

const AREA = "cc10a0c0-0d4c-4f5c-8f3e-0f6e0f0f0001" as AreaId;
const TRACKER = { id: 5, reactor: 1, device: "/dev/mapper/data" } as Tracker;

test("an area that continues later is told once of each store, however often its loss was noted", async () => {
  const told: unknown[] = [];
  const request = async (_reactor: number, { store, firstSlotIndex }: Record<string, number>) => {
    told.push([store, firstSlotIndex]);
  };
  const cuts = new StoreCuts({
    reactors: { request } as never,
    logger: { error: () => undefined } as never,
    ...{ snapshot: "a", members: new Map() },
  });
  cuts.note(1, 7, "cut");
  for (let second = 0; second < 1000; second++) cuts.note(0, 0, "unwritten");
  cuts.note(1, 3, "cut");
  cuts.note(1, 9, "cut");
  assert.equal(told, []);
  await cuts.tellAll(TRACKER, AREA);
  assert.equal(told, [
    [1, 3],
    [0, 0],
  ]);
});

test.run();
