/** A create that fails detaches every device that it has attached, and reports its own error. */
import pino from "pino";
import { test } from "uvu";
import * as assert from "uvu/assert";
import type { DriverContext } from "../../dist/context.js";
import { SnapshotOperations } from "../../dist/operations/snapshot-operations.js";
import type { TrackerOperations } from "../../dist/operations/tracker-operations.js";
import type { Registry } from "../../dist/registry.js";
import type { Tracker } from "../../dist/tracker/tracker.js";

/** A host on which the third device cannot be attached, nor the first one detached. */
function operations(): { snapshots: SnapshotOperations; detached: string[]; logged: string[] } {
  const detached: string[] = [];
  const logged: string[] = [];
  const logger = pino({}, { write: (line: string) => void logged.push(JSON.parse(line).device) });
  const registry = { findTracker: async () => undefined, snapshot: () => created };
  const created = { state: "created", persistence: {}, members: new Map() };
  const trackers = {
    attach: async (device: string) => {
      if (device === "/dev/third") throw new Error("the third is not there");
      return { device };
    },
    detach: async ({ device }: Tracker) => {
      detached.push(device);
      if (device === "/dev/first") throw new Error("the first is in use");
    },
  };
  return {
    snapshots: new SnapshotOperations(
      { logger, frontend: { kind: "ublk" } } as unknown as DriverContext,
      registry as unknown as Registry,
      trackers as unknown as TrackerOperations,
    ),
    detached,
    logged,
  };
}

test("a roll-back that fails hides no error, and continues with the other devices", async () => {
  const { snapshots, detached, logged } = operations();
  const devices = ["/dev/first", "/dev/second", "/dev/third"];
  try {
    await snapshots.create({ devices, stores: ["/store"], limitBytes: 2 ** 20 });
    assert.unreachable("the third device cannot be attached");
  } catch (error) {
    assert.is((error as Error).message, "the third is not there");
  }
  assert.equal(detached, ["/dev/first", "/dev/second"]);
  assert.equal(logged, ["/dev/first"]);
});

test("a failed roll-back of an add hides no error either", async () => {
  const { snapshots, detached, logged } = operations();
  try {
    await snapshots.add("id", "/dev/first");
    assert.unreachable("the snapshot of this host is none");
  } catch (error) {
    assert.is((error as Error).name, "TypeError");
  }
  assert.equal(detached, ["/dev/first"]);
  assert.equal(logged, ["/dev/first"]);
});

test("an add is answered when it is on the medium, and undone if that fails", async () => {
  const told: string[] = [];
  const members = new Map<number, unknown>();
  const names = (): string => [...members.keys()].join();
  let answer: () => Promise<void> = async () => undefined;
  const snapshot = {
    ...{ id: "id", slotBytes: 2 ** 18, stores: [], members },
    state: "created",
    allowAlignment: async () => undefined,
    addMember: ({ id }: Tracker) => members.set(id, {}),
    save: () => told.push(`saved ${names()}`),
    saveIfPossible: () => told.push(`saved ${names()}`),
    persistence: {
      isOn: true,
      saved: async () => {
        told.push("asked");
        await answer();
      },
    },
  };
  const geometry = { chunkShift: 18, logicalBlockBytes: 512 };
  const trackers = {
    attach: async () => ({ id: 7, geometry }),
    detach: async () => told.push("detached"),
  };
  const registry = {
    findTracker: async () => undefined,
    snapshot: () => snapshot,
    tracked: [],
    snapshots: new Map(),
  };
  const snapshots = new SnapshotOperations(
    {} as DriverContext,
    registry as unknown as Registry,
    trackers as unknown as TrackerOperations,
  );
  await snapshots.add("id", "/dev/a");
  assert.equal(told.splice(0), ["saved 7", "asked"]);
  members.clear();
  answer = async () => {
    throw new Error("the medium does not answer");
  };
  const failure = await snapshots.add("id", "/dev/a").catch((error: Error) => error);
  assert.match((failure as Error).message, /the medium does not answer/);
  assert.equal(told, ["saved 7", "asked", "saved ", "detached"]);
});

test.run();
