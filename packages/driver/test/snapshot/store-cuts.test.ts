import type { AreaId } from "@blksnap/data-plane";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { StoreCuts } from "../../dist/snapshot/store-cuts.js";
import type { Tracker } from "../../dist/tracker/tracker.js";

const AREA = "cc10a0c0-0d4c-4f5c-8f3e-0f6e0f0f0001" as AreaId;
const TRACKER = { id: 5, reactor: 1, device: "/dev/mapper/data" } as Tracker;
const NOBODY = new Map<number, { tracker: Tracker; area: { id: AreaId } }>();

type Left = ConstructorParameters<typeof StoreCuts>[0]["left"];

function cutsOf(members = NOBODY, left?: Left) {
  const told: unknown[] = [];
  /** The record at each write. */
  const saved: unknown[] = [];
  const answers: { done(): void; fail(error: Error): void }[] = [];
  const request = async (_reactor: number, { store, firstSlotIndex }: Record<string, number>) => {
    told.push([store, firstSlotIndex]);
    if (members.size > 0) {
      await new Promise<void>((done, fail) => void answers.push({ done, fail }));
    }
  };
  const cuts: StoreCuts = new StoreCuts({
    reactors: { request } as never,
    logger: { error: () => undefined } as never,
    ...{ snapshot: "a", members: members as never, left },
    save: () => saved.push(cuts.record.storeCuts),
  });
  return { cuts, told, saved, answers };
}

const MEMBERS = new Map([[5, { tracker: TRACKER, area: { id: AREA, map: {} as never } }]]);
const settled = () => new Promise((done) => setImmediate(done));

test("an area that continues later learns of each store's loss once, however often that was noted", async () => {
  const { cuts, told } = cutsOf();
  cuts.note(1, 7, "cut");
  for (let second = 0; second < 1000; second++) cuts.note(0, 0, "unwritten");
  cuts.note(1, 3, "cut");
  cuts.note(1, 9, "cut");
  assert.equal(told, []);
  await cuts.reportAll(TRACKER, AREA);
  assert.equal(told, [
    [1, 3],
    [0, 0],
  ]);
});

test("a loss is on record until all maps have it", async () => {
  const { cuts, saved, answers } = cutsOf(MEMBERS);
  cuts.note(0, 4, "unwritten");
  assert.equal(saved, [[{ store: 0, firstSlotIndex: 4 }]]);
  cuts.note(1, 0, "cut");
  answers[0]?.done();
  await settled();
  assert.is(saved.length, 2, "another one is not marked yet");
  answers[1]?.done();
  await settled();
  assert.equal(saved.slice(2), [undefined]);
});

test("if a reactor does not answer, the next daemon notifies its own", async () => {
  const { cuts, saved, answers } = cutsOf(MEMBERS);
  cuts.note(0, 0, "unwritten");
  answers[0]?.fail(new Error("no answer"));
  await settled();
  assert.equal(cuts.record, { storeCuts: [{ store: 0, firstSlotIndex: 0 }] });
  assert.is(saved.length, 1);
  const next = cutsOf(NOBODY, cuts.record);
  await next.cuts.reportAll(TRACKER, AREA);
  assert.equal(next.told, [[0, 0]]);
  assert.equal(next.cuts.record, cuts.record, "other members are not added yet");
  next.cuts.membersReattached();
  assert.equal(next.cuts.record, {});
});

test("a loss that is noted while members are added again stays recorded until they have answered", async () => {
  const { cuts, saved, answers } = cutsOf(MEMBERS, {});
  cuts.note(0, 2, "cut");
  cuts.membersReattached();
  assert.equal(cuts.record, { storeCuts: [{ store: 0, firstSlotIndex: 2 }] });
  answers[0]?.done();
  await settled();
  assert.equal(saved.at(-1), undefined);
});

test.run();
