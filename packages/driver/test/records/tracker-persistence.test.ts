/** The records and journals of a persistent tracker in a directory, throughout their life. */
import {
  closeSync,
  existsSync,
  fstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
} from "node:fs";
import { join } from "node:path";
import { NoAnswerError } from "@blksnap/data-plane";
import { openBackingFile } from "@blksnap/ublk";
import * as assert from "uvu/assert";
import { TrackerPersistence } from "../../dist/records/tracker-persistence.js";
import { trackerRecords } from "../../dist/records/tracker-records.js";
import { patientDirectory } from "../support/patient-directory.js";
import {
  CAPACITY_BYTES,
  CHUNK_SHIFT,
  ended,
  fileOf,
  mountedExt,
  newMap,
  persistenceSuite,
  prepared,
  preparedAs,
  refusal,
  restored,
} from "../support/persistence-world.js";

const test = persistenceSuite("tracker-persistence");

test("a clean end: generation, number and marks continue", async (world) => {
  const map = await ended(world);
  const next = await preparedAs(world);
  assert.is(next.kind === "continues" && next.chunkShift, CHUNK_SHIFT);
  const found = await restored(next.persistence);
  assert.equal(found.info(), map.info());
  assert.ok(found.isMarked(3));
  assert.not.ok(found.isMarked(4));
});

test("without an orderly end, a regular file is not trusted", async (world) => {
  const first = await prepared(world);
  await first.begin(newMap(), CHUNK_SHIFT);
  await first.close();
  const next = await preparedAs(world);
  assert.is(next.kind === "broken" && next.broken.reason, "unclean");
});

test("a file that was modified after the end is not trusted", async (world) => {
  await ended(world);
  utimesSync(world.backing.path, 1, 1);
  const next = await preparedAs(world);
  assert.is(next.kind === "broken" && next.broken.reason, "foreign_write");
});

test("a device of another size begins a new generation", async (world) => {
  await ended(world);
  closeSync(world.backing.fd);
  truncateSync(world.backing.path, 2 * CAPACITY_BYTES);
  world.backing = openBackingFile(world.backing.path);
  const next = await preparedAs(world);
  assert.is(next.kind === "broken" && next.broken.reason, "capacity_changed");
});

test("the record says whether its tracker is attached again automatically, and what it was", async (world) => {
  await ended(world, false);
  const [record] = await trackerRecords(world.directory);
  assert.is(record?.attached, false);
  assert.is(record?.device, world.backing.path);
  assert.is(record?.tracking.clean, true);
  const next = await prepared(world);
  await next.begin(newMap(), CHUNK_SHIFT);
  await next.close();
  const [later] = await trackerRecords(world.directory);
  assert.is(later?.attached, true);
  assert.is(later?.tracking.clean, false);
});

test("a tracker that is not persistent and has no record does not touch the directory", async (world) => {
  const options = { persistent: false };
  assert.equal(await TrackerPersistence.prepare(world.directory, world.backing, options), {
    kind: "unrecorded",
  });
  assert.not.ok(existsSync(world.path));
  mkdirSync(world.path);
  assert.equal(await TrackerPersistence.prepare(world.directory, world.backing, options), {
    kind: "unrecorded",
  });
  assert.equal(readdirSync(world.path), []);
});

test("a tracker that was persistent stays persistent, whether requested or not", async (world) => {
  await ended(world);
  assert.ok((await prepared(world, { persistent: false })).uuid);
});

test("forget leaves nothing, and the next tracker is new", async (world) => {
  await ended(world);
  await (await prepared(world)).forget();
  assert.equal(readdirSync(world.path), ["lock"]);
  assert.is((await preparedAs(world)).kind, "new");
});

test("fail leaves nothing that could be trusted", async (world) => {
  const persistence = await prepared(world);
  await persistence.begin(newMap(), CHUNK_SHIFT);
  await persistence.fail("the medium is gone");
  assert.equal(readdirSync(world.path), ["lock"]);
  await persistence.end(newMap(), true);
  assert.equal(readdirSync(world.path), ["lock"], "an end after that writes nothing");
  assert.is((await preparedAs(world)).kind, "new");
  await persistence.close();
});

test("resume: a new journal with the existing map", async (world) => {
  const map = newMap();
  const first = await prepared(world);
  await first.begin(map, CHUNK_SHIFT);
  map.markBlocks(5, 1);
  await first.close();
  const resumed = await TrackerPersistence.resume(world.directory, world.backing, first.uuid);
  await resumed.begin(map, CHUNK_SHIFT);
  assert.ok((await restored(resumed)).isMarked(5));
  await resumed.close();
});

test("rotate: the new journal has the map, and the old one is gone", async (world) => {
  const map = newMap();
  const persistence = await prepared(world);
  await persistence.begin(map, CHUNK_SHIFT);
  map.markBlocks(7, 2);
  await persistence.rotate(map, {
    mirror: async () => ({ firstSequence: 9 }),
    adopt: async () => ({ adopted: true }),
  });
  assert.ok((await restored(persistence)).isMarked(8));
  assert.equal(
    readdirSync(world.path).filter((name) => name.endsWith(".new")),
    [],
  );
  await persistence.close();
});

test("rotate: a journal that failed is not replaced", async (world) => {
  const persistence = await prepared(world);
  await persistence.begin(newMap(), CHUNK_SHIFT);
  const before = readFileSync(fileOf(world, "cbt-"));
  const dead = {
    mirror: async () => ({ firstSequence: null }),
    adopt: async () => ({ adopted: false }),
  };
  let message = "";
  await persistence.rotate(newMap(), dead).catch((error: Error) => {
    message = error.message;
  });
  assert.match(message, /has failed/);
  assert.equal(readFileSync(fileOf(world, "cbt-")), before);
  await persistence.close();
});

for (const isTaken of [true, false]) {
  const what = isTaken ? "may be about to use stays open" : "will not use is closed";
  test(`rotate, grow: a descriptor that a reactor ${what}`, async (world) => {
    const persistence = await prepared(world);
    await persistence.begin(newMap(), CHUNK_SHIFT);
    const given: number[] = [];
    const unanswered = async ({ fd }: { readonly fd: number }): Promise<never> => {
      given.push(fd);
      throw new NoAnswerError("reactor 0 did not answer", isTaken);
    };
    const adopt = async () => ({ adopted: true });
    await persistence.rotate(newMap(), { mirror: unanswered, adopt }).catch(() => undefined);
    await persistence.grow(newMap(), unanswered).catch(() => undefined);
    const links = given.map((fd) => linksOf(fd));
    assert.equal(links, isTaken ? [0, 0] : [undefined, undefined]);
    await persistence.close();
    for (const fd of isTaken ? given : []) assert.is(linksOf(fd), 0, "for good");
  });
}

/** How many names an open file has; undefined if the descriptor is closed. */
function linksOf(fd: number): number | undefined {
  try {
    return fstatSync(fd).nlink;
  } catch {
    return undefined;
  }
}

test("two daemons do not share a directory", async (world) => {
  await prepared(world);
  const second = patientDirectory(world.path);
  assert.is((await refusal(second.own())).code, "ALREADY_RUNNING");
});

test("only root can read persistent state", async (world) => {
  await ended(world);
  for (const name of readdirSync(world.path)) {
    assert.is(statSync(join(world.path, name)).mode & 0o077, 0, name);
  }
});

test("the mount of the front's file system is recorded, with one write", async (world) => {
  const persistence = await prepared(world);
  await persistence.begin(newMap(), CHUNK_SHIFT);
  const path = fileOf(world, "tracker-");
  const sessionOf = async () => (await trackerRecords(world.directory))[0]?.tracking.content.proof;
  await persistence.noteStart(mountedExt(3));
  const third = await sessionOf();
  assert.match(third?.session ?? "", /"mounts":3,.*"needsRecovery":true/);
  assert.is(third?.unmounted, null);
  rmSync(path);
  await persistence.noteStart(mountedExt(3));
  assert.equal(await trackerRecords(world.directory), [], "it was written again");
  await persistence.noteStart(mountedExt(4));
  assert.match((await sessionOf())?.session ?? "", /"mounts":4/);
  await persistence.noteStart(new Uint8Array(8192));
  assert.is((await sessionOf())?.session, null);
  const [record] = await trackerRecords(world.directory);
  assert.is(record?.tracking.clean, false);
  assert.is(record?.attached, true);
  await persistence.close();
});

test.run();
