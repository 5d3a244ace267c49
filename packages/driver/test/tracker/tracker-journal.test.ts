/** A tracker's journal from attach to its end, with a reactor that only notes its requests. */
import { mkdirSync, readdirSync, writeSync } from "node:fs";
import { join } from "node:path";
import { setImmediate as nextTurn } from "node:timers/promises";
import { JournalKind } from "@blksnap/data-plane";
import { JournalDraft, JournalWriter, writerBytes } from "@blksnap/journal";
import { uuidBytes } from "@blksnap/linux-block";
import * as assert from "uvu/assert";
import { StateDirectory } from "../../dist/records/state-directory.js";
import { trackerRecords } from "../../dist/records/tracker-records.js";
import { type JournalOptions, TrackerJournal } from "../../dist/tracker/tracker-journal.js";
import { runUndo, type Undo } from "../../dist/tracker/undo.js";
import { patientDirectory } from "../support/patient-directory.js";
import {
  CAPACITY_BYTES,
  ended,
  fileOf,
  mountedExt,
  persistenceSuite,
  type World,
} from "../support/persistence-world.js";

const test = persistenceSuite("tracker-journal");

const TRACKER = 1;
const REACTOR = 0;
const GEOMETRY = {
  capacityBytes: CAPACITY_BYTES,
  logicalBlockBytes: 512,
  chunkShift: 18,
  blockShift: 12,
};

async function attached(
  world: World,
  reply: (type: string) => unknown = () => ({}),
  options: Pick<JournalOptions, "area" | "onAreaLost"> = {},
) {
  const asked: string[] = [];
  const told: string[] = [];
  const tell = (_: unknown, text: string) => void told.push(text);
  const path = join(world.root, "run");
  mkdirSync(path, { recursive: true });
  const state = new StateDirectory(path);
  const quiet = () => undefined;
  const context = {
    state,
    persistent: world.directory,
    logger: { info: quiet, warn: tell, error: tell, fatal: tell },
    parameters: {
      trackingBlockMinimumShift: 16,
      trackingBlockMaximumShift: 26,
      trackingBlockMaximumCount: 2 ** 21,
    },
    reactors: {
      request: async (_: number, { type }: { type: string }) => {
        asked.push(type);
        return reply(type);
      },
    },
  };
  const undo: Undo = [];
  const { backing } = world;
  const persistent = { persistent: true, ...options };
  const map = await TrackerJournal.attach(
    context as never,
    TRACKER,
    backing,
    GEOMETRY,
    persistent,
    undo,
  );
  assert.ok(map.journal !== undefined);
  const { journal, areaContinues } = map;
  return { journal, areaContinues, asked, told, undo, close: () => state.close() };
}

test("a notice about the journal after its end does not change the record", async (world) => {
  const { journal, asked, close } = await attached(world);
  await journal.end(true);
  const before = readdirSync(world.path);
  await journal.rotate(TRACKER, REACTOR);
  await journal.fail(TRACKER, REACTOR, 5);
  assert.equal(asked, []);
  assert.equal(readdirSync(world.path), before);
  const [record] = await trackerRecords(world.directory);
  assert.is(record?.tracking.clean, true);
  assert.is(record?.attached, true);
  close();
});

test("an attach that fails leaves no record behind", async (world) => {
  const { undo, close } = await attached(world);
  await runUndo(undo);
  assert.equal(readdirSync(world.path), ["lock"]);
  close();
});

test("a fault: first nothing is left to trust, then writes continue", async (world) => {
  let recordsThen = -1;
  const { journal, asked, undo, close } = await attached(world, (type) => {
    if (type === "dropJournal") recordsThen = readdirSync(world.path).length - 1;
    return {};
  });
  await journal.fail(TRACKER, REACTOR, 5);
  assert.equal(asked, ["dropJournal"]);
  assert.is(recordsThen, 0);
  assert.is(journal.state.state, "failed");
  assert.match(journal.state.why ?? "", /EIO/);
  await runUndo(undo);
  close();
});

test("a fault on a failing medium: the records are removed as soon as possible, and reported until then", async (world) => {
  const { journal, told, undo, close } = await attached(world);
  const { directory } = world;
  (directory as { giveUpTimeoutMs: number }).giveUpTimeoutMs = 1;
  const { removeRecord } = directory;
  directory.removeRecord = () => Promise.reject(new Error("read-only"));
  await journal.fail(TRACKER, REACTOR, 5);
  assert.match(journal.state.why ?? "", /EIO, and what is recorded cannot be removed/);
  assert.match(told.join(), /would miss writes/);
  // Nothing begins with the record that has to go.
  assert.ok(directory.unanswered.has(journal.uuid));
  directory.removeRecord = removeRecord;
  await answered(world);
  assert.equal(readdirSync(world.path), ["lock"]);
  assert.is(journal.state.why, "the journal could not be written: EIO");
  await runUndo(undo);
  close();
});

test("a rotation whose reactor does not answer leaves no draft behind", async (world) => {
  const { journal, undo, close } = await attached(world, (type) => {
    if (type === "mirrorJournal") throw new Error("it is gone");
    return {};
  });
  const path = fileOf(world, "cbt-");
  await journal.rotate(TRACKER, REACTOR);
  assert.is(journal.state.state, "failed");
  assert.not.ok(readdirSync(world.path).includes(`${path}.new`));
  assert.equal(readdirSync(world.path), ["lock"]);
  await runUndo(undo);
  close();
});

function makeGate(): { promise: Promise<void>; resolve: () => void } {
  let resolve = (): void => undefined;
  const promise = new Promise<void>((done) => {
    resolve = done;
  });
  return { promise, resolve };
}

/** The medium has answered everything. */
async function answered({ directory }: World): Promise<void> {
  while (directory.unanswered.size > 0) await nextTurn();
}

/** Long enough for what answers. */
function waitShortly({ directory }: World): void {
  (directory as { answerTimeoutMs: number }).answerTimeoutMs = 2000;
}

test("a rotation fails if a medium or a reactor does not answer, and has no late effect", async (world) => {
  for (const late of ["mirrorJournal", "adoptJournal", "publish"]) {
    const gate = makeGate();
    const { journal, asked, undo, close } = await attached(world, async (type) => {
      if (type === late) await gate.promise;
      return { firstSequence: 5, adopted: true };
    });
    waitShortly(world);
    const { publish } = JournalDraft.prototype;
    JournalDraft.prototype.publish = async function (...args) {
      if (late === "publish") await gate.promise;
      return publish.apply(this, args);
    };
    await journal.rotate(TRACKER, REACTOR);
    assert.is(journal.state.state, "failed");
    assert.match(journal.state.why ?? "", /does not answer/);
    assert.is(asked.at(-1), "dropJournal");
    // The detach of its front does not wait for it, and the next attach does not continue with it.
    await journal.end(true);
    gate.resolve();
    await answered(world);
    JournalDraft.prototype.publish = publish;
    assert.equal(readdirSync(world.path), ["lock"], late);
    await runUndo(undo);
    close();
    world.directory.close();
    world.directory = patientDirectory(world.path);
  }
});

test("forgetting on a medium that does not answer does not delay a detach", async (world) => {
  const { journal, undo, close } = await attached(world);
  const { directory } = world;
  (directory as { answerTimeoutMs: number }).answerTimeoutMs = 1;
  const gate = makeGate();
  const { removeRecord } = directory;
  directory.removeRecord = async (name) => {
    await gate.promise;
    return removeRecord.call(directory, name);
  };
  const failure = await journal.forget().catch((error: Error) => error);
  assert.is((failure as { code?: string }).code, "PERSISTENT_STATE_UNUSABLE");
  // A late removal must not take away what another attach has begun meanwhile.
  assert.ok(directory.unanswered.has(journal.uuid));
  gate.resolve();
  while (readdirSync(world.path).length > 1) await nextTurn();
  await runUndo(undo);
  close();
});

test("a mount that the medium does not record delays others no longer, and the last record counts", async (world) => {
  const { journal, close } = await attached(world);
  const gate = makeGate();
  const { directory } = world;
  const { answerTimeoutMs } = directory;
  const write = directory.writeRecord.bind(directory);
  directory.writeRecord = async (name, value) => {
    await gate.promise;
    await write(name, value);
  };
  waitShortly(world);
  await journal.noteStart(mountedExt(3));
  assert.is(directory.unanswered.size, 1);
  (directory as { answerTimeoutMs: number }).answerTimeoutMs = answerTimeoutMs;
  const ending = journal.end(true);
  gate.resolve();
  await ending;
  await answered(world);
  const [record] = await trackerRecords(directory);
  assert.is(record?.tracking.clean, true);
  close();
});

type Entry = readonly [op: number, a: number, b: number, c: number];

const AREA = "a8b4d1f0-0d4e-4a57-9c1e-3f5b7a90e2c6";
const ANOTHER = "12345678-9abc-4def-8123-456789abcdef";
const [SWITCH, AREA_LOST, AREA_NAMED] = [3, 4, 5];

/** The entries of a loss, as on the medium. */
function lost(area: string): Entry[] {
  const [a, b, c, rest] = new Uint32Array(uuidBytes(area).buffer) as unknown as Entry;
  return [
    [AREA_NAMED, a, b, c],
    [AREA_LOST, 0, 0, rest],
  ];
}

/** A tracker that ended, with these entries added to its journal, however old they are. */
async function endedWith(world: World, entries: readonly Entry[]): Promise<void> {
  const map = await ended(world);
  const [record] = await trackerRecords(world.directory);
  const id = uuidBytes(record!.uuid);
  const checkpoint = map.checkpoint();
  const parts = { kind: JournalKind.TRACKER, id, logBytes: 4096 };
  const draft = await JournalDraft.create(fileOf(world, "cbt-"), parts, checkpoint.length);
  const { logOffsetBytes } = draft;
  const file = await draft.publish(checkpoint, 1);
  const buffer = new ArrayBuffer(writerBytes(entries.length));
  const numbers = { nextSequence: 1, nextCommit: 1 };
  const writer = new JournalWriter({ buffer, id, entriesMax: entries.length, ...numbers });
  for (const entry of entries) writer.append(...entry);
  writer.seal();
  const bytes = new Uint8Array(buffer, writer.sealedOffsetBytes, writer.sealedSectors * 512);
  writeSync(file.fd, bytes, 0, bytes.length, logOffsetBytes);
  await file.close();
}

/** Attaches the tracker with an area. Returns the outcome. */
async function attachedWith(world: World, area: string, entries: readonly Entry[]) {
  await endedWith(world, entries);
  world.directory.close();
  world.directory = patientDirectory(world.path);
  let losses = 0;
  const onAreaLost = async () => void losses++;
  const { journal, areaContinues, told, close } = await attached(world, undefined, {
    area: { id: area },
    onAreaLost,
  });
  await journal.close();
  close();
  assert.is(losses, areaContinues ? 0 : 1);
  return { areaContinues, told };
}

test("journals of daemons that named no area are read and trusted", async (world) => {
  const none = [[1, 4, 1, 0]] as const;
  assert.equal(await attachedWith(world, AREA, none), { areaContinues: true, told: [] });
});

test("a loss that an older daemon has recorded ends the area that the tracker had", async (world) => {
  const { areaContinues, told } = await attachedWith(world, AREA, [[AREA_LOST, 0, 0, 0]]);
  assert.is(areaContinues, false);
  assert.equal(told, [`its image is lost: old data of the area ${AREA} was lost`]);
});

test("a take that an older daemon has recorded resets earlier losses", async (world) => {
  const before: Entry[] = [
    [AREA_LOST, 0, 0, 0],
    [SWITCH, 0, 0, 0],
  ];
  assert.equal(await attachedWith(world, AREA, before), { areaContinues: true, told: [] });
});

test("a loss of another area is reported, and has no other effect", async (world) => {
  const { areaContinues, told } = await attachedWith(world, AREA, lost(ANOTHER));
  assert.is(areaContinues, true);
  assert.equal(told, [`old data of the area ${ANOTHER} was lost: not of this one`]);
});

test("an area is refused if the last take was of another one", async (world) => {
  const [named, [, , , rest]] = lost(ANOTHER) as [Entry, Entry];
  const { areaContinues, told } = await attachedWith(world, AREA, [named, [SWITCH, 0, 0, rest]]);
  assert.is(areaContinues, false);
  const why = `the last take was that of the area ${ANOTHER}, not of ${AREA}`;
  assert.equal(told, [`its image is lost: ${why}`]);
});

test.run();
