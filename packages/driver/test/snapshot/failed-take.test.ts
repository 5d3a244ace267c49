import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { answerFor, type ControlError } from "@blksnap/api";
import { commandStoreSystem } from "@blksnap/diff-storage";
import { Serial } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { machinePorts } from "../../dist/index.js";
import { SnapshotOperations } from "../../dist/operations/snapshot-operations.js";
import { assertCreated } from "../../dist/snapshot/assert-created.js";
import { Snapshot } from "../../dist/snapshot/snapshot.js";
import { closeMembers, takeSnapshot, undoTake } from "../../dist/snapshot/take.js";
import type { Tracker } from "../../dist/tracker/tracker.js";
import { type Loss, NO_LOSS } from "../../dist/tracker/tracker-record.js";

const SLOT_BYTES = 262_144;
const LIMIT_SLOTS = 8;
const map = { name: "map", fd: -1, lengthBytes: 0 };
const tracker = { id: 1, reactor: 0 } as Tracker;
type GiveBack = { type: string; tracker: number; area: string };
let folder: string;

test.before.each(() => {
  folder = mkdtempSync(join(tmpdir(), "blksnap-take-"));
});
test.after.each(() => rmSync(folder, { recursive: true }));

/** A snapshot with 8 slots of storage, and the extents granted to its reactors. */
async function newSnapshot() {
  const granted: [firstSlot: number, count: number][] = [];
  const reactors = {
    request: async (_reactor: number, _request: GiveBack): Promise<void> => undefined,
    send: (_reactor: number, grant: { firstSlot: number; count: number }) =>
      granted.push([grant.firstSlot, grant.count]),
  };
  const context = {
    reactors,
    state: { path: folder, writeRecord: () => undefined, removeRecord: () => undefined },
    persistent: { inTime: (work: Promise<void>) => work },
    storeSystem: commandStoreSystem,
    portionBytes: LIMIT_SLOTS * SLOT_BYTES,
    logger: { info: () => undefined, warn: () => undefined },
  };
  const snapshot = await Snapshot.create(context as never, {
    stores: [folder],
    limitBytes: LIMIT_SLOTS * SLOT_BYTES,
    alignmentBytes: 512,
    slotBytes: SLOT_BYTES,
    onOverflow: { policy: "break-snapshot" },
    persistent: false,
    readOnlyImages: false,
    releasableImages: false,
  });
  const used = () => snapshot.storage.stats().allocatedBytes / SLOT_BYTES;
  return { snapshot, granted, used, reactors };
}

test("a take that fails frees all slots, however often", async () => {
  const { snapshot, granted, used } = await newSnapshot();
  for (let attempt = 0; attempt < 5; attempt++) {
    snapshot.beginTake();
    const { id, extents } = await snapshot.areaSetup({ id: "area", map }, 1);
    assert.is(extents.length, 2);
    await snapshot.serveSlots(tracker, id, 4);
    // What the reader has freed already is not freed again.
    snapshot.freeSlots([extents[0]!]);
    assert.ok(used() >= 1, "no slot was handed out");
    snapshot.undoTake();
    assert.is(used(), 0);
    assert.is(snapshot.state, "created");
    assert.not(snapshot.hasArea(id));
  }
  assert.ok(granted.every(([, count]) => count > 0));
  await snapshot.closeStorage();
});

test("a device that is short gets slots that the others have not used, even of a full store", async () => {
  const { snapshot, granted, used, reactors } = await newSnapshot();
  snapshot.beginTake();
  const idle = { ...tracker, id: 2, reactor: 1 } as Tracker;
  const areas = ["busy", "idle"].map((id) => ({ id, map }));
  snapshot.addMember(tracker, areas[0]);
  snapshot.addMember(idle, areas[1]);
  const [busy, unused] = await Promise.all(areas.map((area) => snapshot.areaSetup(area, 2)));
  while (used() < LIMIT_SLOTS) await snapshot.serveSlots(tracker, busy!.id, 4);
  reactors.request = async (reactor, { type, tracker: of, area }) => {
    assert.equal([reactor, type, of, area], [1, "giveBackSlots", 2, "idle"]);
    snapshot.takeBackSlots(unused!.extents);
  };
  await snapshot.serveSlots(tracker, busy!.id, 4);
  assert.equal(granted.at(-1), [unused!.extents[0], 1]);
  reactors.request = () => Promise.reject(new Error("no answer"));
  for (let left = 1; left <= unused!.extents[1]!; left++) {
    await snapshot.serveSlots(tracker, busy!.id, 4);
  }
  assert.equal(granted.at(-1), [0, 0], "no area has any");
  assert.is(used(), LIMIT_SLOTS);
  snapshot.undoTake();
  assert.is(used(), 0, "each slot is given back once");
  await snapshot.closeStorage();
});

test("a complete take keeps its slots", async () => {
  const { snapshot, used } = await newSnapshot();
  snapshot.beginTake();
  const { id, extents } = await snapshot.areaSetup({ id: "area", map }, 1);
  await snapshot.endTake();
  assert.is(snapshot.state, "taken");
  assert.ok(snapshot.hasArea(id));
  assert.is(used(), extents[1]);
  await snapshot.closeStorage();
});

test("slots that arrive after the take has failed are freed at once", async () => {
  const { snapshot, granted, used } = await newSnapshot();
  snapshot.beginTake();
  const { id } = await snapshot.areaSetup({ id: "area", map }, 1);
  const late = snapshot.serveSlots(tracker, id, 4);
  snapshot.undoTake();
  await late;
  assert.equal(granted, []);
  assert.is(used(), 0);
  await snapshot.closeStorage();
});

/** A snapshot of one device; `when` runs at each request to its reactor. */
async function toBeTaken(
  happens: (type: string, device: TakenDevice, area: string, snapshot: Snapshot) => void,
) {
  const { snapshot, used } = await newSnapshot();
  const device: TakenDevice = {
    id: 1,
    reactor: 0,
    device: "/dev/lossy",
    loss: NO_LOSS,
    isLate: false,
    recordLoss: () => undefined,
    presentCapacityBytes: async () => 2 ** 20,
    geometry: { capacityBytes: 2 ** 20, logicalBlockBytes: 512, chunkShift: 18, blockShift: 12 },
    backing: { kind: "file", fd: -1, params: {} },
    front: { deviceNumber: "0:0", isLive: true, capacityBytes: 2 ** 20 },
    commitJournal: async () => undefined,
    withoutRotation: (operation: () => Promise<unknown>) => operation(),
  };
  const taken = snapshot.addMember(device as unknown as Tracker);
  const asked: string[] = [];
  const context = {
    reactors: {
      request: async (_reactor: number, { type }: { type: string }) => {
        asked.push(type);
        happens(type, device, taken.area?.id ?? "", snapshot);
        return { stallUs: 1, isLate: device.isLate };
      },
    },
    state: {
      createMap: async () => map,
      removeMap: () => {
        asked.push("removeMap");
        happens("removeMap", device, "", snapshot);
      },
    },
    logger: { info: () => undefined, warn: () => undefined, error: () => undefined },
    frontend: {
      kind: "ublk",
      start: async () => ({ path: "/dev/image", stop: async () => undefined }),
      links: { add: () => undefined, remove: () => undefined },
    },
    freezing: machinePorts().freezing,
    freezes: new Serial(),
    freezeTimeoutMs: 60_000,
    holdTimeoutMs: 60_000,
  };
  return {
    asked,
    snapshot,
    /** The error of a take that fails. */
    take: async () =>
      answerFor(await takeSnapshot(context as never, snapshot).catch((error: Error) => error))
        .error,
    undo: () => undoTake(context as never, snapshot),
    takeAgain: () =>
      new SnapshotOperations(context as never, { snapshot: () => snapshot } as never, {} as never)
        .take(snapshot.id)
        .catch((error: ControlError) => error.code),
    assertUndone: async () => {
      assert.equal([snapshot.state, snapshot.takenAt, used()], ["created", null, 0]);
      assert.is(taken.area, undefined);
      await snapshot.closeStorage();
    },
    used,
  };
}

/** The first hold and switch are a rehearsal. */
const TAKING = ["prepareArea", "hold", "switch", "hold", "switch"];
const CLOSING = ["dropArea", "closeArea", "removeMap"];

/** A take of one device, during which `act` runs at the request `when`. */
async function takeMeanwhile(
  when: string,
  happens: (device: TakenDevice, area: string, snapshot: Snapshot) => void,
) {
  const { asked, assertUndone, take } = await toBeTaken((type, ...words) => {
    if (type === when) happens(...words);
  });
  const error = await take();
  assert.equal(asked, [...TAKING, ...CLOSING]);
  await assertUndone();
  return error;
}

/** A take that fails, and then one request of its undoing, once. */
async function takeThatFailsAndThen(step: string, isLate: boolean | null = false) {
  let isFailing = true;
  const made = await toBeTaken((type, device, area) => {
    device.isLate = isLate;
    if (type === "switch") device.loss = { errorCode: -5, area };
    if (type !== step || !isFailing) return;
    isFailing = false;
    throw new Error("the reactor does not answer");
  });
  assert.is((await made.take()).name, "SNAPSHOT_CORRUPTED", "why the take failed");
  return made;
}

for (const [step, isLate] of [
  ["dropArea", false],
  ["closeArea", false],
  ["closeArea", true],
  ["closeArea", null],
] as const) {
  test(`a take whose ${step} fails is undone when it is tried again (late: ${isLate})`, async () => {
    const made = await takeThatFailsAndThen(step, isLate);
    const { asked, assertUndone, snapshot, undo, used } = made;
    assert.is(snapshot.state, "taking");
    assert.ok(used() > 0, "its area may still be written to");
    assert.throws(() => assertCreated(snapshot), /could not be undone/);
    asked.length = 0;
    await undo();
    assert.equal(asked, CLOSING);
    // If the area is gone by then, only the first close could tell whether the store had answered everything.
    if (isLate !== false) {
      const [member] = snapshot.members.values();
      const [area] = member?.lateAreas ?? [];
      assert.ok(used() > 0, "the store may still write into the slots");
      snapshot.areaIdle(area ?? "");
    }
    await assertUndone();
  });
}

test("a snapshot whose take was not undone can be taken again when it is", async () => {
  const { asked, assertUndone, takeAgain } = await takeThatFailsAndThen("dropArea");
  asked.length = 0;
  assert.is(await takeAgain(), "SNAPSHOT_CORRUPTED");
  assert.equal(asked, [...CLOSING, ...TAKING, ...CLOSING]);
  await assertUndone();
});

test("a take that fails is undone, even if a map's file cannot be removed", async () => {
  const { assertUndone } = await takeThatFailsAndThen("removeMap");
  await assertUndone();
});

interface TakenDevice extends Record<string, unknown> {
  /** The answer to closing its area. */
  isLate: boolean | null;
  loss: Loss;
  splice?: { path: string; state: string; noteLoss: () => void };
}

test("a take during which old data is lost fails with EFAULT and is undone", async () => {
  // The reactor's notice arrives between the switch and the thaw.
  const error = await takeMeanwhile("switch", (device, area) => {
    device.loss = { errorCode: -5, area };
  });
  assert.equal([error.name, error.errno_name], ["SNAPSHOT_CORRUPTED", "EFAULT"]);
  assert.match(error.message, /old data of \/dev\/lossy was lost/);
});

test("a take fails and is undone if its device is led past its front meanwhile", async () => {
  const error = await takeMeanwhile("prepareArea", (device) => {
    device.splice = { path: "/dev/mapper/vg-data", state: "lost", noteLoss: () => undefined };
  });
  assert.is(error.name, "SPLICE_LOST");
});

test("a take fails and is undone if another program ends its front before its area exists", async () => {
  // Writes past the front would be on its image: the loss of an area that exists is on record, this is not.
  const error = await takeMeanwhile("prepareArea", ({ front }) => {
    (front as { isLive: boolean }).isLive = false;
  });
  assert.is(error.name, "FRONT_ENDED");
});

test("a take that fails is undone even if an area's journal cannot be removed, and reports its own error", async () => {
  const medium = new Error("the medium fails");
  const error = await takeMeanwhile("switch", (device, area, snapshot) => {
    device.loss = { errorCode: -5, area };
    snapshot.persistence.removeJournal = () => Promise.reject(medium);
  });
  assert.is(error.name, "SNAPSHOT_CORRUPTED");
});

test("a take that is complete except for its record on the medium frees all slots when it is undone", async () => {
  const { assertUndone, snapshot, take } = await toBeTaken(() => undefined);
  const persistence = snapshot.persistence as { saved: () => Promise<void> };
  persistence.saved = () => Promise.reject(new Error("the medium does not answer"));
  assert.match((await take()).message, "the medium does not answer");
  await assertUndone();
});

/** Two members whose areas a reactor closes, and the state of their maps. */
function closing() {
  const steps: string[] = [];
  const failing = new Set<string>();
  const meet = (step: string): void => {
    steps.push(step);
    if (failing.has(step)) throw new Error(`${step} failed`);
  };
  const members = [1, 2].map((id) => ({
    tracker: { id, reactor: 0 },
    area: { id: `area ${id}`, map: { name: `map ${id}` } },
    image: undefined,
    lateAreas: new Set<string>(),
  }));
  const context = {
    reactors: {
      request: async (_: number, { type, tracker }: { type: string; tracker: number }) => {
        // The second one answers late.
        if (tracker === 2) await new Promise((resolve) => setTimeout(resolve, 20));
        meet(`${type} ${tracker}`);
        return { isLate: false };
      },
    },
    state: { removeMap: ({ name }: { name: string }) => meet(`close ${name}`) },
  };
  const close = () => closeMembers(context as never, members as never);
  const closes = () => steps.filter((step) => step.startsWith("close "));
  return { close, closes, failing, steps };
}

test("closing members again meets none that is half closed, and closes no map twice", async () => {
  const { close, closes, failing, steps } = closing();
  failing.add("dropArea 1");
  const first = await close().catch((error: Error) => error.message);
  assert.is(first, "dropArea 1 failed");
  // The other one was waited for.
  assert.equal(closes(), ["close map 2"]);
  failing.clear();
  await close();
  await close();
  assert.equal(closes(), ["close map 2", "close map 1"]);
  assert.ok(steps.length > 0);
});

test("a map whose file cannot be removed is closed once", async () => {
  const { close, closes, failing } = closing();
  failing.add("close map 1");
  const first = await close().catch((error: Error) => error.message);
  assert.is(first, "close map 1 failed");
  await close();
  assert.equal(closes().sort(), ["close map 1", "close map 2"]);
});

test("a take is undone only when no record on the medium says that it is complete", async () => {
  const { asked, assertUndone, snapshot, take, undo } = await toBeTaken((type, device, area) => {
    if (type === "switch") device.loss = { errorCode: -5, area };
  });
  const persistence = snapshot.persistence as { withdraw: () => Promise<void> };
  persistence.withdraw = () => Promise.reject(new Error("the medium does not answer"));
  await take();
  assert.equal(asked, TAKING, "copies continue");
  assert.is(snapshot.state, "taking");
  persistence.withdraw = async () => undefined;
  await undo();
  assert.equal(asked, [...TAKING, ...CLOSING]);
  await assertUndone();
});

test.run();
