/** Snapshots that a daemon has left, for tests of their recovery. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { commandStoreSystem } from "@blksnap/diff-storage";
import { AreaState, DiffAreaMap } from "@blksnap/engine";
import { uuidBytes, uuidText } from "@blksnap/linux-block";
import { MappedMemory } from "@blksnap/uring";
import type { Test } from "uvu";
import * as assert from "uvu/assert";
import { StateFile } from "../../dist/records/file-names.js";
import type { MemberRecord, SnapshotRecord } from "../../dist/records/records.js";
import { StateDirectory } from "../../dist/records/state-directory.js";
import { lookThroughAll, type Resumed } from "../../dist/recovery/resume.js";
import type { Tracker } from "../../dist/tracker/tracker.js";
import { NO_LOSS } from "../../dist/tracker/tracker-record.js";

export const ID = "6f0a3f5e-94a2-4c55-9c0e-0d9a3e5a7a11";
export const AREAS: Record<number, string> = {
  1: "11111111-1111-4111-8111-111111111111",
  2: "22222222-2222-4222-8222-222222222222",
};
export const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
export const GEOMETRY = {
  capacityBytes: 2 ** 20,
  logicalBlockBytes: 512,
  chunkShift: 18,
  blockShift: 12,
};

/** Of the test that runs. */
export let folder: string;
export let state: StateDirectory;

/** Each test of the file has its own. */
export function inOwnFolder(test: Test): void {
  test.before.each(() => {
    folder = mkdtempSync(join(tmpdir(), "blksnap-resume-"));
    state = new StateDirectory(join(folder, "state"));
  });
  test.after.each(() => {
    state.close();
    rmSync(folder, { recursive: true });
  });
}

/** A member and its map, as this daemon leaves them. */
export async function member(tracker: number): Promise<MemberRecord> {
  const area = AREAS[tracker] as string;
  const file = await leaveMap(StateFile.areaMap.name(ID, area), uuidBytes(area));
  return { tracker, area, map: file, image: null };
}

/** The same for a daemon whose areas had no ids. */
export async function oldMember(tracker: number): Promise<MemberRecord> {
  const file = await leaveMap(`area-${ID}-${tracker}`, undefined);
  return { tracker, map: file, image: null };
}

async function leaveMap(name: string, id: Uint8Array | undefined): Promise<string> {
  const lengthBytes = DiffAreaMap.byteLength(GEOMETRY);
  const file = await state.createMap(name, lengthBytes);
  const memory = MappedMemory.file(file.fd, 0, lengthBytes);
  const area = DiffAreaMap.create(memory.buffer, GEOMETRY, id);
  if (id === undefined) new Int32Array(memory.buffer)[1] = 1;
  area.setState(AreaState.ACTIVE);
  memory.unmap();
  state.bindMap(file);
  state.closeMap(file);
  return file.name;
}

export function idInMap(name: string): string {
  const file = state.openMap(name);
  const memory = MappedMemory.file(file.fd, 0, file.lengthBytes);
  const { id } = DiffAreaMap.open(memory.buffer);
  memory.unmap();
  state.closeMap(file);
  return uuidText(id ?? new Uint8Array(0));
}

export const silent = {
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
  fatal: () => undefined,
};

/** A snapshot of two devices that a daemon has left; its image devices are gone. */
export async function left(storeFile: string, members?: readonly MemberRecord[]) {
  const record: SnapshotRecord = {
    id: ID,
    state: "taken",
    createdAt: "2026-01-01T00:00:00.000Z",
    takenAt: "2026-01-01T00:00:01.000Z",
    stallUs: 1,
    limitBytes: 2 ** 22,
    alignmentBytes: 512,
    slotBytes: 2 ** 18,
    persistent: false,
    stores: [{ path: storeFile }],
    members: members ?? [await member(1), await member(2)],
    events: [],
    nextEvent: 1,
  };
  state.writeRecord(`snapshot-${ID}`, record);
  const said: string[] = [];
  const context = {
    state,
    storeSystem: commandStoreSystem,
    portionBytes: 2 ** 20,
    frontend: {
      leftImage: async () => undefined,
      removeImage: async () => undefined,
      start: () => Promise.reject(new Error("no image in this test")),
      links: { remove: () => undefined },
    },
    reactors: {
      send: () => undefined,
      request: async (_: number, { type, tracker }: { type: string; tracker: number }) => {
        said.push(`${type} ${tracker}`);
      },
    },
    logger: silent,
    persistent: { forgetting: new Map() },
  };
  const [found] = await lookThroughAll(context as never, [record], new Map());
  return { context: context as never, record, found: found as Resumed, said };
}

/** Fronts that the test brings up. */
export function comingFronts() {
  const fronts = new Map<number, Promise<Tracker | undefined>>();
  const come = new Map<number, (tracker: Tracker | undefined) => void>();
  for (const id of [1, 2]) fronts.set(id, new Promise((resolve) => come.set(id, resolve)));
  const live = (id: number) =>
    come.get(id)?.({
      id,
      reactor: 0,
      hasOldArea: true,
      loss: NO_LOSS,
      geometry: GEOMETRY,
    } as never);
  const fail = (id: number) => come.get(id)?.(undefined);
  return { fronts, live, fail };
}

const listener = {
  tracker: () => undefined,
  snapshot: () => undefined,
  lost: () => undefined,
  progressed: () => undefined,
};

export async function until(condition: () => boolean): Promise<void> {
  for (let waited = 0; !condition(); waited++) {
    assert.ok(waited < 200_000, "nothing happened in 200 s");
    await new Promise((done) => setTimeout(done, 1));
  }
}

export function resuming(
  fronts: Map<number, Promise<Tracker | undefined>>,
  record: SnapshotRecord,
) {
  const none = Promise.resolve();
  return { fronts, serving: none, restored: none, all: [record], listener };
}
