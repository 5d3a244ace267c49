/** The record of a tracker that was served and is not any more, on media that answer, fail or are late. */
import { symlinkSync, unlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { judgeContinuity } from "@blksnap/linux-block";
import * as assert from "uvu/assert";
import { PersistentDirectory } from "../../dist/records/persistent-directory.js";
import { TrackerPersistence } from "../../dist/records/tracker-persistence.js";
import { trackerRecords } from "../../dist/records/tracker-records.js";
import { recordEnds } from "../../dist/recovery/record-ends.js";
import { HungCall } from "../support/hung-call.js";
import { patientDirectory } from "../support/patient-directory.js";
import {
  CHUNK_SHIFT,
  fileOf,
  mountedExt,
  newMap,
  persistenceSuite,
  prepared,
  refusal,
  type World,
} from "../support/persistence-world.js";

const test = persistenceSuite("record ends");

async function onRecord({ directory }: World) {
  const [record] = await trackerRecords(directory);
  const { clean, serving } = record!.tracking;
  return { attached: record!.attached, clean, serving };
}

async function served(world: World): Promise<TrackerPersistence> {
  const persistence = await prepared(world);
  await persistence.begin(newMap(), CHUNK_SHIFT);
  await persistence.serve();
  return persistence;
}

/** As the next daemon of the same boot does. */
async function recorded(world: World, inUse: readonly string[] = []): Promise<boolean> {
  world.directory.close();
  world.directory = patientDirectory(world.path);
  for (const uuid of inUse) world.directory.inUse.add(uuid);
  const say = () => undefined;
  return recordEnds({
    persistent: world.directory,
    logger: { warn: say, error: say } as never,
  });
}

/** The limit for what answers, even on a busy machine. */
const ANSWER_MS = 200_000;
const SERVING = { attached: true, clean: false, serving: true };

test("a tracker counts as served only between serve and leave", async (world) => {
  const persistence = await prepared(world);
  await persistence.begin(newMap(), CHUNK_SHIFT);
  assert.equal(await onRecord(world), { ...SERVING, serving: false });
  await persistence.serve();
  assert.equal(await onRecord(world), SERVING);
  await persistence.leave(false);
  assert.equal(await onRecord(world), { attached: false, clean: false, serving: false });
  await persistence.close();
});

test("a daemon that resumes keeps the record as it is, until it serves", async (world) => {
  const first = await served(world);
  await first.close();
  const next = await TrackerPersistence.resume(world.directory, world.backing, first.uuid);
  await next.begin(newMap(), CHUNK_SHIFT);
  assert.equal(await onRecord(world), SERVING);
  await next.leave(false);
  await next.close();
  const last = await TrackerPersistence.resume(world.directory, world.backing, first.uuid);
  await last.begin(newMap(), CHUNK_SHIFT);
  assert.equal(await onRecord(world), { attached: false, clean: false, serving: false });
  await last.serve();
  assert.equal(await onRecord(world), SERVING);
  await last.close();
});

test("a daemon that resumes with a medium that does not answer still knows what must not be trusted", async (world) => {
  const { uuid } = await served(world);
  const { directory, backing } = world;
  const { readRecords } = directory;
  const noAnswer = () => Promise.reject(new Error("no answer"));
  directory.readRecords = noAnswer;
  directory.boot = noAnswer;
  const next = await TrackerPersistence.resume(directory, backing, uuid);
  assert.ok(directory.inUse.has(uuid), "it is not taken for one that has ended");
  directory.readRecords = readRecords;
  await next.fail("the journal could not be begun");
  assert.equal(await trackerRecords(directory), []);
  await next.close();
});

test("an end after the front was gone is not a clean one", async (world) => {
  const persistence = await served(world);
  await persistence.end(newMap(), false, { isLate: true });
  assert.equal(await onRecord(world), { attached: false, clean: false, serving: false });
});

test("a tracker that was served in this boot, and is not any more, has ended", async (world) => {
  const { uuid } = await served(world);
  assert.ok(await recorded(world, [uuid]));
  assert.equal(await onRecord(world), SERVING, "somebody serves it");
  assert.ok(await recorded(world));
  assert.equal(await onRecord(world), { ...SERVING, serving: false });
});

test("a tracker served without being kept does not continue, even if its file system stayed mounted", async (world) => {
  writeFileSync(world.backing.path, mountedExt(1), { flag: "r+" });
  await served(world);
  const verdict = async (): Promise<string> => {
    const [record] = await trackerRecords(world.directory);
    const tracking = record!.tracking;
    // As for a disk.
    const found = { ...tracking, identity: { ...tracking.identity, wwid: "naa.1" } };
    return judgeContinuity(found, found).verdict;
  };
  assert.is(await verdict(), "continue");
  // The next daemon serves it without keeping its map.
  assert.ok(await recorded(world));
  assert.is(await verdict(), "new_generation");
});

test("a record of another boot is left for its attach", async (world) => {
  await served(world);
  const [record] = await trackerRecords(world.directory);
  const witness = { ...record!.tracking.witness, bootId: "another" };
  const tracking = { ...record!.tracking, witness };
  await world.directory.writeRecord(`tracker-${record!.uuid}`, { ...record, tracking });
  assert.ok(await recorded(world));
  assert.equal(await onRecord(world), SERVING);
});

test("a directory of another daemon is left alone, even after that daemon's end", async (world) => {
  await served(world);
  const said: unknown[] = [];
  const say = (...words: unknown[]) => void said.push(words);
  const other = patientDirectory(world.path);
  const logger = { warn: say, error: say } as never;
  assert.ok(await recordEnds({ persistent: other, logger }), "it is not tried again");
  assert.equal(await onRecord(world), SERVING);
  assert.equal(said, []);
});

test("a failure is logged once", async (world) => {
  await served(world);
  const said: unknown[] = [];
  const say = (...words: unknown[]) => void said.push(words);
  const failing = { exists: () => Promise.reject(new Error("no answer")) };
  const context = { persistent: failing as never, logger: { warn: say, error: say } as never };
  assert.not.ok(await recordEnds(context));
  assert.not.ok(await recordEnds(context, true));
  assert.is(said.length, 1);
});

test("a record that was removed, or is in use, when its turn comes is left as it is", async (world) => {
  const { uuid } = await served(world);
  let then: (directory: PersistentDirectory) => Promise<void> | void = () => undefined;
  class Changing extends PersistentDirectory {
    override async readRecords(prefix: string) {
      const found = await super.readRecords(prefix);
      const change = then;
      then = () => undefined;
      await change(this);
      return found;
    }
  }
  world.directory.close();
  world.directory = new Changing(world.path);
  const said: unknown[] = [];
  const say = (...words: unknown[]) => void said.push(words);
  const context = { persistent: world.directory, logger: { warn: say, error: say } as never };
  then = ({ inUse }) => void inUse.add(uuid);
  assert.ok(await recordEnds(context));
  assert.equal(await onRecord(world), SERVING);
  world.directory.inUse.clear();
  then = (directory) => directory.removeRecord(`tracker-${uuid}`);
  assert.ok(await recordEnds(context));
  assert.equal(await trackerRecords(world.directory), []);
  assert.equal(said, []);
  assert.not.ok(world.directory.unanswered.has(uuid));
});

test("a medium that fails is retried", async (world) => {
  const { uuid } = await served(world);
  const unfinished = join(world.path, `tracker-${uuid}.record.new`);
  class Full extends PersistentDirectory {
    override async own(): Promise<void> {
      await super.own();
      symlinkSync("/dev/full", unfinished);
    }
  }
  world.directory.close();
  world.directory = new Full(world.path);
  const say = () => undefined;
  const context = { persistent: world.directory, logger: { warn: say, error: say } as never };
  assert.not.ok(await recordEnds(context));
  assert.equal(await onRecord(world), SERVING);
  assert.not.ok(world.directory.unanswered.has(uuid));
  unlinkSync(unfinished);
  assert.ok(await recorded(world));
  assert.equal(await onRecord(world), { ...SERVING, serving: false });
});

test("a medium that does not answer delays nothing, and its record is not used", async (world) => {
  const { uuid } = await served(world);
  const call = new HungCall(ANSWER_MS);
  class Hanging extends PersistentDirectory {
    override async writeRecord(name: string, value: unknown): Promise<void> {
      await call.hang();
      await super.writeRecord(name, value);
    }
  }
  world.directory.close();
  world.directory = new Hanging(world.path, 1, ANSWER_MS, async () => 0);
  const say = () => undefined;
  const context = { persistent: world.directory, logger: { warn: say, error: say } as never };
  const isRecorded = await recordEnds(context).finally(() => call.restore());
  assert.not.ok(isRecorded);
  const attach = { persistent: true };
  const refused = TrackerPersistence.prepare(world.directory, world.backing, attach);
  assert.is((await refusal(refused)).code, "PERSISTENT_STATE_UNUSABLE");
  call.answer();
  while (world.directory.unanswered.has(uuid)) {
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  assert.equal(await onRecord(world), { ...SERVING, serving: false });
});

test("leave and end together wait no longer than the limit of a medium that hangs", async (world) => {
  const persistence = await served(world);
  const asked: number[] = [];
  const { setTimeout: real } = globalThis;
  const never = new Promise<void>(() => undefined);
  world.directory.writeRecord = () => never;
  globalThis.setTimeout = ((fire: () => void, ms: number) => {
    asked.push(ms);
    return real(fire, 0);
  }) as never;
  try {
    assert.match(String(await persistence.leave(true).catch(String)), "does not answer");
    assert.match(String(await persistence.end(newMap(), true).catch(String)), "does not answer");
  } finally {
    globalThis.setTimeout = real;
  }
  const { answerTimeoutMs } = world.directory;
  assert.equal(asked.filter((ms) => ms === answerTimeoutMs / 2).length, 2);
  assert.ok(fileOf(world, "tracker-").length > 0);
});

test.run();
