/** A tracker's journal from attach to its end, with a reactor that only notes what it is asked. */
import { mkdirSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { setImmediate as nextTurn } from "node:timers/promises";
import { JournalDraft } from "@blksnap/journal";
import * as assert from "uvu/assert";
import { PersistentDirectory } from "../dist/records/persistent-directory.js";
import { StateDirectory } from "../dist/records/state-directory.js";
import { trackerRecords } from "../dist/records/tracker-records.js";
import { TrackerJournal } from "../dist/tracker/tracker-journal.js";
import { runUndo, type Undo } from "../dist/tracker/undo.js";
import {
  CAPACITY_BYTES,
  fileOf,
  mountedExt,
  persistenceSuite,
  type World,
} from "./persistence-world.js";

const test = persistenceSuite("tracker-journal");

const TRACKER = 1;
const REACTOR = 0;
const GEOMETRY = {
  capacityBytes: CAPACITY_BYTES,
  logicalBlockBytes: 512,
  chunkShift: 18,
  blockShift: 12,
};

async function attached(world: World, reply: (type: string) => unknown = () => ({})) {
  const asked: string[] = [];
  const path = join(world.root, "run");
  mkdirSync(path, { recursive: true });
  const state = new StateDirectory(path);
  const quiet = () => undefined;
  const context = {
    state,
    persistent: world.directory,
    logger: { info: quiet, warn: quiet, error: quiet, fatal: quiet },
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
  const persistent = { persistent: true };
  const map = await TrackerJournal.attach(
    context as never,
    TRACKER,
    backing,
    GEOMETRY,
    persistent,
    undo,
  );
  assert.ok(map.journal !== undefined);
  return { journal: map.journal, asked, undo, close: () => state.close() };
}

test("word of the journal that comes after the end changes nothing on record", async (world) => {
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

test("a fault: first nothing is left to be believed, then writes go on", async (world) => {
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

/** The medium has answered all that it was asked. */
async function answered({ directory }: World): Promise<void> {
  while (directory.unanswered.size > 0) await nextTurn();
}

/** Long enough for what answers. */
function waitShortly({ directory }: World): void {
  (directory as { answerTimeoutMs: number }).answerTimeoutMs = 2000;
}

test("a rotation that a medium or a reactor does not answer: it fails, and nothing comes later", async (world) => {
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
    // A front that is detached does not wait for it, and who comes next does not go on with it.
    await journal.end(true);
    gate.resolve();
    await answered(world);
    JournalDraft.prototype.publish = publish;
    assert.equal(readdirSync(world.path), ["lock"], late);
    await runUndo(undo);
    close();
    world.directory.close();
    world.directory = new PersistentDirectory(world.path);
  }
});

test("a mount that the medium does not take down: others wait no longer, and the last word counts", async (world) => {
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

test.run();
