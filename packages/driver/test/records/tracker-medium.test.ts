/** Persistent trackers on a medium that is damaged, full, read-only or in use by another daemon. */
import { mkdirSync, readFileSync, rmSync, symlinkSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { CbtMap } from "@blksnap/engine";
import * as assert from "uvu/assert";
import { TrackerPersistence } from "../../dist/records/tracker-persistence.js";
import { trackerRecords } from "../../dist/records/tracker-records.js";
import { patientDirectory } from "../support/patient-directory.js";
import {
  CHUNK_SHIFT,
  ended,
  fileOf,
  newMap,
  persistenceSuite,
  prepared,
  preparedAs,
  refusal,
  restored,
  type World,
} from "../support/persistence-world.js";

const test = persistenceSuite("tracker-medium");

test("no bit of the header or the checkpoint changes unnoticed", async (world) => {
  const map = await ended(world);
  const path = fileOf(world, "cbt-");
  const bytes = readFileSync(path);
  const used = 4096 + Math.ceil(CbtMap.checkpointBytes(map.blockCount) / 4080) * 4096 + 512;
  const persistence = await prepared(world);
  // Nothing is read between the header's sector and the checkpoint; each check reads the whole log.
  const places = [...Array(512).keys()];
  for (let at = 4096; at < used; at += 41) places.push(at);
  for (const at of places) {
    const damaged = Buffer.from(bytes);
    damaged[at]! ^= 1 << (at & 7);
    writeFileSync(path, damaged);
    let code = "believed";
    try {
      await persistence.load();
    } catch (error) {
      code = (error as { code: string }).code;
    }
    assert.match(code, /^JOURNAL_/, `byte ${at}`);
  }
});

test("a journal of another tracker, a newer one and a short one are refused by name", async (world) => {
  await ended(world);
  const persistence = await prepared(world);
  const path = fileOf(world, "cbt-");
  const bytes = readFileSync(path);
  const codeOf = () =>
    persistence.load().then(
      () => "believed",
      (error: { code: string }) => error.code,
    );
  truncateSync(path, bytes.length - 512);
  assert.is(await codeOf(), "JOURNAL_TRUNCATED");
  writeFileSync(path, "");
  assert.is(await codeOf(), "JOURNAL_TRUNCATED");
  rmSync(path);
  assert.is(await codeOf(), "ENOENT");
  const other = patientDirectory(join(world.root, "other"));
  const stranger = await TrackerPersistence.prepare(other, world.backing, { persistent: true });
  assert.ok(stranger.kind === "new");
  await stranger.persistence.end(newMap(), true);
  writeFileSync(path, readFileSync(fileOf({ ...world, path: other.path }, "cbt-")));
  assert.is(await codeOf(), "JOURNAL_FOREIGN");
  other.close();
});

test("every damaged byte of a record is found, and the record is not used", async (world) => {
  await ended(world);
  const path = fileOf(world, "tracker-");
  const bytes = readFileSync(path);
  for (let at = 0; at < bytes.length; at++) {
    const damaged = Buffer.from(bytes);
    damaged[at]! ^= 1 << (at % 7);
    writeFileSync(path, damaged);
    const problems: string[] = [];
    const records = await trackerRecords(world.directory, (_, why) => void problems.push(why));
    assert.equal(records, [], `byte ${at}`);
    assert.is(problems.length, 1);
  }
  writeFileSync(path, bytes.toString().replace("blksnap-record 1 ", "blksnap-record 3 "));
  const problems: string[] = [];
  await trackerRecords(world.directory, (_, why) => void problems.push(why));
  assert.match(problems[0]!, /version 3/);
  assert.is((await preparedAs(world)).kind, "new", "and a tracker begins anew");
});

test("a record of another device is not used for this one", async (world) => {
  await ended(world);
  const [record] = await trackerRecords(world.directory);
  const { identity } = record!.tracking;
  const tracking = { ...record!.tracking, identity: { ...identity, wwid: "naa.1", partition: 3 } };
  await world.directory.writeRecord(`tracker-${record!.uuid}`, { ...record, tracking });
  const error = await refusal(prepared(world, { persistent: true, uuid: record!.uuid }));
  assert.is(error.code, "DEVICE_NOT_FOUND");
  assert.match(error.message, /another device/);
  const next = await preparedAs(world);
  assert.is(next.kind, "new");
  assert.is.not(next.persistence.uuid, record!.uuid);
});

/** Makes creating a file with this name fail as on a full file system. */
function fillUp(world: World, name: string): void {
  symlinkSync("/dev/full", join(world.path, `${name}.new`));
}

test("a full file system: refused by name at the beginning", async (world) => {
  const persistence = await prepared(world);
  fillUp(world, `cbt-${persistence.uuid}.journal`);
  const error = await refusal(persistence.begin(newMap(), CHUNK_SHIFT));
  assert.is(error.code, "PERSISTENT_STATE_UNUSABLE");
  assert.match(error.message, /ENOSPC/);
  assert.equal(await trackerRecords(world.directory), []);
});

test("a full file system at the end: the record is not clean, and still true", async (world) => {
  const map = newMap();
  const persistence = await prepared(world);
  await persistence.begin(map, CHUNK_SHIFT);
  const path = fileOf(world, "tracker-");
  symlinkSync("/dev/full", `${path}.new`);
  const error = await refusal(persistence.end(map, true));
  assert.is(error.code, "PERSISTENT_STATE_UNUSABLE");
  const [record] = await trackerRecords(world.directory);
  assert.is(record?.attached, true);
  assert.is(record?.tracking.clean, false);
  assert.equal((await restored(persistence)).info(), map.info());
});

test("a full file system at a rotation leaves the journal unchanged", async (world) => {
  const persistence = await prepared(world);
  await persistence.begin(newMap(), CHUNK_SHIFT);
  fillUp(world, `cbt-${persistence.uuid}.journal`);
  const unreachable = async () => assert.unreachable("the reactor is not asked") as never;
  let code = "";
  await persistence
    .rotate(newMap(), { mirror: unreachable, adopt: unreachable })
    .catch((error: NodeJS.ErrnoException) => {
      code = String(error.code);
    });
  assert.is(code, "ENOSPC");
  assert.ok(await restored(persistence));
  await persistence.close();
});

test("an unusable directory is reported; trackers that do not need it are served", async (world) => {
  writeFileSync(world.path, "a file in its place");
  const error = await refusal(prepared(world));
  assert.is(error.code, "PERSISTENT_STATE_UNUSABLE");
  assert.ok(error.message.includes(world.path));
  rmSync(world.path);
  mkdirSync(world.path);
  // As on a read-only medium: the lock cannot be opened for writing.
  mkdirSync(join(world.path, "lock"));
  assert.is((await refusal(prepared(world))).code, "PERSISTENT_STATE_UNUSABLE");
  const options = { persistent: false };
  assert.equal(await TrackerPersistence.prepare(world.directory, world.backing, options), {
    kind: "unrecorded",
  });
});

test("after a crash, a medium that fails is reported when the new journal begins", async (world) => {
  const first = await prepared(world);
  await first.begin(newMap(), CHUNK_SHIFT);
  await first.close();
  world.directory.close();
  rmSync(join(world.path, "lock"));
  mkdirSync(join(world.path, "lock"));
  const later = patientDirectory(world.path);
  const resumed = await TrackerPersistence.resume(later, world.backing, first.uuid);
  assert.is(
    (await refusal(resumed.begin(newMap(), CHUNK_SHIFT))).code,
    "PERSISTENT_STATE_UNUSABLE",
  );
  await resumed.fail("as the daemon does then");
  assert.equal(await trackerRecords(world.directory), [], "the next boot does not trust it");
});

test("a late begin does not make a record trusted that still has to be removed", async (world) => {
  const persistence = await prepared(world);
  const { directory } = world;
  let answer = (): void => undefined;
  const answered = new Promise<void>((resolve) => {
    answer = resolve;
  });
  let refusals = 0;
  Object.assign(directory, {
    answerTimeoutMs: 1,
    giveUpTimeoutMs: 1,
    writeRecord: () => answered,
    removeRecord: () => {
      refusals++;
      return Promise.reject(new Error("read-only"));
    },
  });
  await refusal(persistence.begin(newMap(), CHUNK_SHIFT));
  await persistence.fail("as the daemon does then").catch(() => undefined);
  const before = refusals;
  answer();
  while (refusals === before) await sleep(1);
  await sleep(10);
  assert.ok(directory.unanswered.has(persistence.uuid), "nothing begins with it anew");
});

test("a device with a record is refused if the record cannot be kept up to date", async (world) => {
  await ended(world);
  world.directory.close();
  rmSync(join(world.path, "lock"));
  mkdirSync(join(world.path, "lock"));
  const later = { ...world, directory: patientDirectory(world.path) };
  const error = await refusal(prepared(later, { persistent: false }));
  assert.is(error.code, "PERSISTENT_STATE_UNUSABLE");
});

test.run();
