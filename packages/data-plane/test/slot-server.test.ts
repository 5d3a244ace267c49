import { SlotServer } from "@blksnap/data-plane";
import { ENOSPC, ETIMEDOUT } from "@blksnap/errors";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { AreaTicker } from "../dist/area-ticker.js";

type Answer = { firstSlot: number; count: number } | "wait" | "full";

/** A storage with preset answers, and the messages sent to the reactors. */
function setUp(isActive = () => true) {
  const sent: [tracker: number, firstSlot: number, count: number][] = [];
  const storage = {
    answers: [] as Answer[],
    changed: () => {},
    subscribed: true,
    freed: [] as [firstSlot: number, count: number][],
    isWithholding: false,
    free: (firstSlot: number, count: number) => storage.freed.push([firstSlot, count]),
    allocateExtent: (): Answer => storage.answers.shift() ?? "full",
    allocateExtentWhenReady: async () => {
      const answer = storage.allocateExtent();
      return answer === "wait" ? "full" : answer;
    },
    onChange: (listener: () => void) => {
      storage.changed = listener;
      return () => {
        storage.subscribed = false;
      };
    },
  };
  const denials: [tracker: number, errno: number][] = [];
  const updates: boolean[] = [];
  const gathered: string[] = [];
  const gives: Answer[] = [];
  const server = new SlotServer({
    storage,
    isActive,
    gather: async ({ area }) => {
      gathered.push(area);
      storage.answers.push(...gives.splice(0));
    },
    send: (_reactor, { tracker, firstSlot, count, errno, isUpdate = false }) => {
      sent.push([tracker, firstSlot, count]);
      updates.push(isUpdate);
      if (count === 0) denials.push([tracker, errno]);
    },
  });
  return { sent, denials, updates, storage, server, gathered, gives };
}

const user = (tracker: number) => ({ tracker, area: `area ${tracker}`, reactor: 0 });

test("available slots are granted at once", async () => {
  const { sent, storage, server } = setUp();
  storage.answers = [{ firstSlot: 7, count: 2 }];
  await server.serve(user(1), 4);
  assert.equal(sent, [[1, 7, 2]]);
});

test("an area that would be refused gets slots that others have not used", async () => {
  const { sent, storage, server, gathered, gives } = setUp();
  storage.answers = [{ firstSlot: 7, count: 2 }];
  await server.serve(user(1), 4);
  assert.equal(gathered, [], "no other area is asked while there are slots");
  gives.push({ firstSlot: 30, count: 1 });
  await server.serve(user(2), 4);
  await server.serve(user(3), 4);
  assert.equal(gathered, ["area 2", "area 3"]);
  assert.equal(sent, [
    [1, 7, 2],
    [2, 30, 1],
    [3, 0, 0],
  ]);
});

test("a second request after a refusal waits once, not twice", async () => {
  const { sent, storage, server } = setUp();
  await server.serve(user(1), 4);
  await server.serve(user(1), 4);
  storage.answers = [
    { firstSlot: 9, count: 1 },
    { firstSlot: 20, count: 1 },
  ];
  storage.changed();
  assert.equal(sent.slice(2), [[1, 9, 1]]);
});

test("refused areas get slots as soon as there are any, in order", async () => {
  const { sent, storage, server } = setUp();
  await server.serve(user(1), 4);
  await server.serve(user(2), 4);
  assert.equal(sent, [
    [1, 0, 0],
    [2, 0, 0],
  ]);
  storage.answers = [{ firstSlot: 9, count: 1 }, "wait"];
  storage.changed();
  assert.equal(sent.slice(2), [[1, 9, 1]]);
  storage.answers = [{ firstSlot: 3, count: 4 }];
  storage.changed();
  storage.changed();
  assert.equal(sent.slice(3), [[2, 3, 4]]);
});

test("a denial says whether space is missing or a store does not answer, even if that changes", async () => {
  const { denials, updates, storage, server } = setUp();
  storage.isWithholding = true;
  await server.serve(user(1), 4);
  storage.changed();
  assert.equal(denials, [[1, ETIMEDOUT]]);
  storage.isWithholding = false;
  await server.serve(user(2), 4);
  storage.changed();
  assert.equal(denials.slice(1), [
    [2, ENOSPC],
    [1, ENOSPC],
  ]);
  storage.answers = [{ firstSlot: 9, count: 1 }];
  storage.isWithholding = true;
  storage.changed();
  assert.equal(denials.slice(3), [[2, ETIMEDOUT]]);
  assert.equal(updates, [false, false, true, false, true], "only answers answer");
});

test("a repeated request is not denied again for the earlier denial", async () => {
  const { denials, storage, server } = setUp();
  await server.serve(user(1), 4);
  const serving = server.serve(user(1), 4);
  storage.isWithholding = true;
  storage.changed();
  assert.equal(denials, [[1, ENOSPC]]);
  await serving;
  assert.equal(denials.slice(1), [[1, ETIMEDOUT]]);
});

test("slots that arrived between the refusal and now are not missed", async () => {
  const { sent, storage, server } = setUp();
  storage.answers = ["full", "full", { firstSlot: 5, count: 1 }];
  await server.serve(user(1), 4);
  assert.equal(sent, [
    [1, 0, 0],
    [1, 5, 1],
  ]);
});

test("nothing is allocated for an area that is gone, or after the end", async () => {
  let active = true;
  const { sent, storage, server } = setUp(() => active);
  await server.serve(user(1), 4);
  active = false;
  storage.answers = [{ firstSlot: 5, count: 1 }];
  storage.changed();
  assert.is(storage.answers.length, 1);
  assert.is(sent.length, 1);
  await server.serve(user(2), 4);
  assert.equal(storage.freed, [[5, 1]]);
  assert.is(sent.length, 1);
  server.close();
  assert.not(storage.subscribed);
});

test("one timer ticks for blocked writes as long as there are any", () => {
  const timers: (() => void)[] = [];
  const setTimer = (_delayMs: number, callback: () => void) => timers.push(callback);
  const ticker = new AreaTicker({ setTimer } as never, 10);
  const area = { blockedWrites: 1, ticks: 0, tick: () => area.ticks++ };
  assert.ok(ticker.start(area as never));
  assert.not(ticker.start(area as never));
  timers.shift()?.();
  assert.is(area.ticks, 1);
  area.blockedWrites = 0;
  timers.shift()?.();
  assert.is(area.ticks, 2);
  assert.is(timers.length, 0);
  assert.ok(ticker.start(area as never));
});

test.run();
