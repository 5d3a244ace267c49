import { closeSync, openSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { commandStoreSystem, type StoreSystem } from "@blksnap/diff-storage";
import { AreaState, DiffAreaMap } from "@blksnap/engine";
import { sealNow } from "@blksnap/linux-block";
import { MappedMemory } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { KeptFile } from "../../dist/records/file-names.js";
import { PersistentDirectory } from "../../dist/records/persistent-directory.js";
import type { SnapshotRecord } from "../../dist/records/records.js";
import {
  lookThroughAll,
  type Resumed,
  type ResumedMember,
  resumeSnapshot,
} from "../../dist/recovery/resume.js";
import type { Tracker } from "../../dist/tracker/tracker.js";
import { type Loss, NO_LOSS } from "../../dist/tracker/tracker-record.js";
import {
  AREAS,
  comingFronts,
  folder,
  GEOMETRY,
  ID,
  idInMap,
  inOwnFolder,
  left,
  member,
  oldMember,
  resuming,
  silent,
  state,
  UUID,
  until,
} from "./left-snapshot.js";

inOwnFolder(test);

test("an area of a daemon whose areas had no ids continues with the id that its record implies", async () => {
  const journal = "0c4e2d7a-52c9-4d0e-8a55-7b0f4d5f9a10";
  const unnamed = await oldMember(1);
  const kept = { ...(await oldMember(2)), journal };
  const { found, context, record } = await left(join(folder, "store"), [unnamed, kept]);
  assert.ok("snapshot" in found, "it can be resumed");
  const ids = [1, 2].map((tracker) => found.members.get(tracker)?.area.id as string);
  assert.is(ids[1], journal);
  assert.match(ids[0], UUID);
  assert.is.not(ids[0], ids[1]);
  for (const id of ids) assert.ok(found.snapshot.hasArea(id));
  // The maps keep their names, and have their ids in them.
  assert.equal(
    [unnamed, kept].map(({ map }) => idInMap(map as string)),
    ids,
  );
  for (const { area } of found.members.values()) state.closeMap(area.map);

  // After a kill before the record is written, the next daemon finds the same.
  const [again] = await lookThroughAll(context, [record], new Map());
  assert.ok(again !== undefined && "snapshot" in again);
  assert.equal(
    [1, 2].map((tracker) => again.members.get(tracker)?.area.id),
    ids,
  );
  const joined = again.members.get(1);
  again.snapshot.addMember({ id: 1 } as Tracker, joined?.area);
  again.snapshot.membersReattached();
  const [saved] = state.readRecords("snapshot-");
  const { members } = (saved as unknown as { value: SnapshotRecord }).value;
  assert.equal(members, [{ ...unnamed, area: ids[0], journal: null }]);
});

test("a map of another area is not resumed", async () => {
  const [one, two] = [await member(1), await member(2)];
  const { found } = await left(join(folder, "store"), [{ ...one, map: two.map }, two]);
  assert.not("snapshot" in found);
});

test("an area that was given up loses only its own image; its journal is removed when the medium allows it", async () => {
  const store = join(folder, "store");
  writeFileSync(store, "");
  const members = [await member(1), { ...(await member(2)), journal: AREAS[2] as string }];
  const file = state.openMap(members[1]?.map as string);
  const memory = MappedMemory.file(file.fd, 0, file.lengthBytes);
  // The daemon was killed before it could record that.
  DiffAreaMap.open(memory.buffer).setState(AreaState.DROPPED);
  memory.unmap();
  state.closeMap(file);
  const { context, found, record, said } = await left(store, members);
  assert.ok("snapshot" in found, "it can be resumed");
  assert.equal([...found.members.keys()], [1]);
  const { fronts, live } = comingFronts();
  const removals: string[] = [];
  const removeFile = async (name: string): Promise<void> => {
    if (removals.push(name) < 3) throw new Error("the medium fails");
  };
  const persistent = { forgetting: new Map(), own: async () => undefined, removeFile };
  const its = { ...(context as object), persistent } as never;
  const going = resumeSnapshot(its, found, resuming(fronts, record));
  live(1);
  live(2);
  await until(() => said.includes("wakeArea 1"));
  assert.equal([...found.snapshot.members.keys()].length, 1);
  // It ends at its images, which the test does not have.
  assert.is(await going, undefined);
  assert.equal(said, ["wakeArea 1", "dropArea 1", "closeArea 1"]);
  await until(() => removals.length === 3);
  assert.equal(removals, Array(3).fill(KeptFile.areaJournal.name(AREAS[2] as string)));
});

test("a daemon that is killed when one image is lost leaves the others to the next", async () => {
  const store = join(folder, "store");
  writeFileSync(store, "");
  const { context, found, record } = await left(store);
  const { fronts, live } = comingFronts();
  // Its device was written by others: its front has come without the area.
  const { map } = (found.members.get(2) as ResumedMember).area;
  const memory = MappedMemory.file(map.fd, 0, map.lengthBytes);
  DiffAreaMap.open(memory.buffer).setState(AreaState.DROPPED);
  memory.unmap();
  fronts.set(2, Promise.resolve({ id: 2, hasOldArea: false, loss: NO_LOSS } as never));
  const errors: string[] = [];
  const logger = { ...silent, error: (_: object, text: string) => errors.push(text) };
  const its = { ...(context as object), logger } as never;
  const going = resumeSnapshot(its, found, resuming(fronts, record));
  await until(() => errors.includes("the image of a device is lost"));

  const [again] = await lookThroughAll(context, [record], new Map());
  assert.ok(again !== undefined && "snapshot" in again, "the snapshot is not lost");
  assert.equal([...again.members.keys()], [1]);
  assert.equal([...again.givenUp], [2]);
  for (const { area } of again.members.values()) state.closeMap(area.map);
  live(1);
  // It ends at its images, which the test does not have.
  assert.is(await going, undefined);
});

test("an area that was given up for a device that has grown since loses only its own image", async () => {
  const { context, found, record } = await left(join(folder, "store"));
  const { map } = (found.members.get(2) as ResumedMember).area;
  const memory = MappedMemory.file(map.fd, 0, map.lengthBytes);
  DiffAreaMap.open(memory.buffer).setState(AreaState.DROPPED);
  memory.unmap();
  for (const one of found.members.values()) state.closeMap(one.area.map);
  const grown = { ...GEOMETRY, capacityBytes: 2 * GEOMETRY.capacityBytes };
  const [again] = await lookThroughAll(context, [record], new Map([[2, grown]]));
  assert.ok(again !== undefined && "snapshot" in again, "the snapshot is not lost");
  assert.equal([...again.members.keys()], [1]);
  assert.equal([...again.givenUp], [2]);
  for (const one of again.members.values()) state.closeMap(one.area.map);
});

test("an area's loss before a reboot is its error afterwards, and no other area's", async () => {
  const store = join(folder, "store");
  writeFileSync(store, "");
  const one = await member(1);
  const file = state.openMap(one.map as string);
  const memory = MappedMemory.file(file.fd, 0, file.lengthBytes);
  // As restored from its journal, which has no error.
  DiffAreaMap.open(memory.buffer).setLost(2, 0, 1);
  memory.unmap();
  state.closeMap(file);
  const members = [{ ...one, errorCode: -28 }, await member(2)];
  const { context, found, record, said } = await left(store, members);
  const fronts = new Map<number, Promise<Tracker>>();
  const losses: unknown[] = [];
  for (const id of [1, 2]) {
    const recordLoss = (loss: Loss): void => void losses.push([id, loss]);
    const tracker = { id, reactor: 0, hasOldArea: true, loss: NO_LOSS, geometry: GEOMETRY };
    fronts.set(id, Promise.resolve({ ...tracker, recordLoss } as unknown as Tracker));
  }
  const going = resumeSnapshot(context, found, resuming(fronts, record));
  await until(() => said.includes("wakeArea 1") && said.includes("wakeArea 2"));
  assert.equal(losses, [[1, { errorCode: -28, area: AREAS[1], isKept: true }]]);
  assert.equal(await found.snapshot.events.list(), [], "it was told before");
  // It ends at its images, which the test does not have.
  assert.is(await going, undefined);
});

test("an area wakes with its stores and its own front, whatever other fronts wait for", async () => {
  const store = join(folder, "store");
  writeFileSync(store, "");
  const { context, found, record, said } = await left(store);
  const { fronts, live, fail } = comingFronts();
  const going = resumeSnapshot(context, found, resuming(fronts, record));
  live(1);
  await until(() => said.includes("wakeArea 1"));
  fail(2);
  // It ends at its images, which the test does not have.
  assert.is(await going, undefined);
  assert.equal(said, ["wakeArea 1", "dropArea 1", "closeArea 1"]);
});

test("if journals cannot be renewed, no boot trusts a device's old one before its copies begin", async () => {
  const store = join(folder, "store");
  writeFileSync(store, "");
  const members = await Promise.all(
    [1, 2].map(async (id) => ({ ...(await member(id)), journal: AREAS[id] as string })),
  );
  const { context, record, said } = await left(store, members);
  const failing = () => Promise.reject(new Error("read-only"));
  const persistent = { own: failing, giveUpTimeoutMs: 1, forgetting: new Map() };
  const its = { ...(context as object), persistent } as never;
  const kept = { ...record, persistent: true };
  const [found] = await lookThroughAll(its, [kept], new Map());
  const { fronts, live } = comingFronts();
  const going = resumeSnapshot(its, found as Resumed, resuming(fronts, kept));
  for (const id of [1, 2]) {
    live(id);
    await until(() => said.includes(`wakeArea ${id}`));
    const first = said.splice(0, said.indexOf(`wakeArea ${id}`) + 1);
    assert.equal([...new Set(first)], [`dropAreaJournal ${id}`, `wakeArea ${id}`]);
  }
  assert.is(await going, undefined);
});

test("without its stores a snapshot is lost; its writes continue front by front", async () => {
  const { context, found, record, said } = await left(join(folder, "none"));
  const { fronts, live } = comingFronts();
  const going = resumeSnapshot(context, found, resuming(fronts, record));
  live(2);
  await until(() => said.includes("closeArea 2"));
  assert.equal(said.splice(0), ["dropArea 2", "closeArea 2"]);
  live(1);
  assert.is(await going, undefined);
  assert.equal(said, ["dropArea 1", "closeArea 1"]);
  assert.equal(state.recordNames(), []);
  assert.equal(
    state.fileNames().filter((name) => name.startsWith("area-")),
    [],
  );
});

/** The same snapshot after an orderly end: persistent, its store sealed, its record on a medium. */
async function leftSealed(storeFile: string) {
  const { context, record, said } = await left(storeFile);
  const persistent = new PersistentDirectory(join(folder, "medium"));
  await persistent.own();
  const fd = openSync(storeFile, "r");
  const storeSeals = [await sealNow(fd, 0)];
  closeSync(fd);
  const sealed: SnapshotRecord = { ...record, persistent: true, storeSeals };
  state.writeRecord(`snapshot-${ID}`, sealed);
  const { members: _, ...snapshot } = sealed;
  await persistent.writeRecord(`snapshot-${ID}`, { snapshot, members: [] });
  const errors: string[] = [];
  const logger = {
    info: () => undefined,
    warn: () => undefined,
    error: (_: object, text: string) => errors.push(text),
  };
  const its = { ...(context as object), persistent, logger };
  const [found] = await lookThroughAll(its as never, [sealed], new Map());
  const onRecord = async () => {
    const [here] = state.readRecords("snapshot-");
    const [there] = await persistent.readRecords("snapshot-");
    return [
      (here as { value?: SnapshotRecord })?.value?.storeSeals,
      (there as { value?: { snapshot: SnapshotRecord } })?.value?.snapshot.storeSeals,
    ];
  };
  return { context: its, sealed, found: found as Resumed, said, errors, persistent, onRecord };
}

test("a foreign write to a store loses its snapshot, and the log says why", async () => {
  const store = join(folder, "store");
  writeFileSync(store, Buffer.alloc(2 ** 20, 7));
  const { context, sealed, found, said, errors, persistent } = await leftSealed(store);
  const other = openSync(store, "r+");
  writeSync(other, "others'", 2 ** 19);
  closeSync(other);
  const { fronts, live } = comingFronts();
  const going = resumeSnapshot(context as never, found, resuming(fronts, sealed));
  live(1);
  live(2);
  assert.is(await going, undefined);
  assert.not.ok(said.some((request) => request.startsWith("wakeArea")));
  const text = `snapshot is lost: another program wrote to the store ${store} while no daemon used it: it was modified`;
  assert.is(errors.filter((error) => error.startsWith(text)).length, 1);
  assert.equal(await persistent.readRecords("snapshot-"), []);
  assert.equal(state.recordNames(), []);
  persistent.close();
});

test("an unchanged store is used, and its seals are removed before it changes", async () => {
  const store = join(folder, "store");
  writeFileSync(store, Buffer.alloc(2 ** 18, 7));
  const { context, sealed, found, said, persistent, onRecord } = await leftSealed(store);
  assert.equal(await onRecord(), [sealed.storeSeals, sealed.storeSeals]);
  const atGrowth: unknown[] = [];
  const storeSystem: StoreSystem = {
    ...commandStoreSystem,
    async fallocate(...range) {
      atGrowth.push(...(await onRecord()));
      return commandStoreSystem.fallocate(...range);
    },
  };
  const { fronts, live, fail } = comingFronts();
  const [again] = await lookThroughAll({ ...context, storeSystem } as never, [sealed], new Map());
  const going = resumeSnapshot(
    { ...context, storeSystem } as never,
    again as Resumed,
    resuming(fronts, sealed),
  );
  live(1);
  await until(() => said.includes("wakeArea 1") && atGrowth.length > 0);
  fail(2);
  await going;
  assert.equal(
    atGrowth.filter((seals) => seals !== undefined),
    [],
  );
  for (const { area } of found.members.values()) closeSync(area.map.fd);
  persistent.close();
});

test.run();
