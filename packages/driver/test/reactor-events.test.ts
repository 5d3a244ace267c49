import { setImmediate as nextTurn } from "node:timers/promises";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { ReactorEvents } from "../dist/reactor-events.js";
import { Registry } from "../dist/registry.js";
import type { Tracker } from "../dist/tracker/tracker.js";

const silent = { warn: () => undefined, error: () => undefined };

/** A registry whose trackers report what their journals are asked. */
function desk() {
  const asked: string[] = [];
  const registry: Registry = new Registry(
    {} as never,
    () => [],
    (tracker) => events.actOnUnclaimed(tracker),
  );
  const events = new ReactorEvents(registry, silent as never);
  const add = (id: number) =>
    registry.addTracker({
      id,
      rotateJournal: async () => asked.push(`rotate ${id}`),
      failJournal: async (errno: number) => asked.push(`fail ${id}: ${errno}`),
    } as unknown as Tracker);
  const addSnapshot = (area: string) => {
    const snapshot = {
      id: `snapshot ${area}`,
      members: new Map<number, object>(),
      hasStorage: false,
      hasArea: (id: string) => id === area,
      serveSlots: async (tracker: Tracker, _area: string, wanted: number) =>
        asked.push(`slots ${tracker.id}: ${wanted}`),
    };
    registry.snapshots.set(snapshot.id, snapshot as never);
    return snapshot;
  };
  return { asked, events, add, addSnapshot };
}

test("a journal's notice before its tracker is known is handled once it is", () => {
  const { asked, events, add } = desk();
  events.begin();
  events.onNotice(0, { notice: "journalLow", tracker: 2 });
  events.onNotice(0, { notice: "journalFault", tracker: 3, errno: 5 });
  add(1);
  assert.equal(asked, []);
  add(3);
  add(2);
  assert.equal(asked, ["fail 3: 5", "rotate 2"]);
  events.onNotice(0, { notice: "journalLow", tracker: 2 });
  assert.equal(asked.slice(2), ["rotate 2"]);
});

test("during recovery, a tracker's journal is served as soon as the tracker is known", () => {
  const { asked, events, add } = desk();
  events.onNotice(0, { notice: "journalLow", tracker: 1 });
  assert.equal(asked, []);
  add(1);
  events.retry();
  assert.equal(asked, ["rotate 1"]);
  events.onNotice(0, { notice: "journalLow", tracker: 1 });
  events.begin();
  assert.equal(asked, ["rotate 1", "rotate 1"]);
});

test("during recovery, requests for slots wait until a snapshot has its stores, and no longer", () => {
  const { asked, events, add, addSnapshot } = desk();
  const snapshot = addSnapshot("five");
  for (const tracker of [1, 2]) {
    add(tracker);
    events.onNotice(0, { notice: "slots", tracker, area: "five", wanted: tracker });
  }
  events.retry();
  assert.equal(asked, []);
  snapshot.hasStorage = true;
  events.retry();
  assert.equal(asked, [], "it has no device yet");
  snapshot.members.set(1, {});
  events.retry();
  assert.equal(asked, ["slots 1: 1"]);
  events.onNotice(0, { notice: "slots", tracker: 1, area: "five", wanted: 7 });
  assert.equal(asked.splice(0), ["slots 1: 1", "slots 1: 7"]);
  snapshot.members.set(2, {});
  events.begin();
  assert.equal(asked, ["slots 2: 2"]);
});

/** A tracker in a snapshot, whose devices end. */
function endings(isStopping: boolean) {
  const said: string[] = [];
  const device = (path: string) => ({
    path,
    noteEnd(forgetNumber: () => void) {
      if (!isStopping) forgetNumber();
      return !isStopping;
    },
  });
  const registry: Registry = new Registry(
    {} as never,
    () => [],
    (tracker) => events.actOnUnclaimed(tracker),
  );
  const events = new ReactorEvents(registry, silent as never, async (tracker, area) => {
    said.push(`drop ${area} of ${tracker.id}`);
  });
  const tracker = {
    id: 1,
    device: "/dev/one",
    front: device("/dev/ublkb0"),
    noteFrontEnd: () => !isStopping,
  } as unknown as Tracker;
  const member = {
    tracker,
    area: { id: "the area", map: {} },
    imageNumber: 4,
    imageLink: undefined,
    image: device("/dev/x"),
  };
  const snapshot = {
    id: "one",
    members: new Map([[1, member]]),
    hasArea: (id: string) => id === "the area",
    fault: (of: Tracker, area: string, errno: number) =>
      said.push(`fault ${of.id}, ${area}: ${errno}`),
    hungStores: {
      areaDropped: (storage: string, area: string) => said.push(`${area} needs no ${storage}`),
    },
    hasStorage: true,
    storage: "store",
    saveIfPossible: () => said.push(`save image ${member.imageNumber}`),
  };
  registry.snapshots.set("one", snapshot as never);
  events.begin();
  return { registry, events, tracker, said, member };
}

test("a front that another program has ended also ends its image, once it is known", async () => {
  const { registry, events, tracker, said } = endings(false);
  events.onNotice(0, { notice: "frontEnded", tracker: 1 });
  assert.equal(said, []);
  registry.addTracker(tracker);
  assert.equal(said.splice(0), ["drop the area of 1", "fault 1, the area: 19"]);
  await nextTurn();
  assert.equal(said, ["the area needs no store"], "stores that it waits for serve the others");
});

test("an image that another program has ended is reported, and its number is released", () => {
  const { registry, events, tracker, said, member } = endings(false);
  registry.addTracker(tracker);
  events.onNotice(0, { notice: "imageEnded", tracker: 1, area: "the area" });
  assert.equal(said, ["save image undefined", "fault 1, the area: 19"]);
  assert.is(member.imageNumber, undefined);
});

test("devices that end on request are not reported", () => {
  const { registry, events, tracker, said, member } = endings(true);
  registry.addTracker(tracker);
  events.onNotice(0, { notice: "imageEnded", tracker: 1, area: "the area" });
  events.onNotice(0, { notice: "frontEnded", tracker: 1 });
  assert.equal(said, []);
  assert.is(member.imageNumber, 4);
});

test.run();
