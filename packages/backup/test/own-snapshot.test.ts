/** What a killed export has left is destroyed by the next one of the device, to whatever target. */
import { randomBytes } from "node:crypto";
import { mkdirSync, readdirSync } from "node:fs";
import { BlksnapClientError } from "@blksnap/client";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { exportQcow2 } from "../dist/export-qcow2.js";
import { exportRaw } from "../dist/export-raw.js";
import { exportToStore } from "../dist/export-store.js";
import type { BackupClient } from "../dist/snapshot.js";
import { BackupStore } from "../dist/store.js";
import { assertSame, FakeMachine, failureOf, MIB } from "./fake-machine.js";

const CAPACITY_BYTES = 5 * MIB;

function madeMachine() {
  const machine = new FakeMachine(CAPACITY_BYTES);
  machine.write(0, randomBytes(CAPACITY_BYTES));
  const hostFolder = machine.path("host");
  mkdirSync(hostFolder, { mode: 0o755 });
  const { client, device } = machine;
  const own = { client, device, hostFolder, stores: ["/var/tmp"], limitBytes: MIB, host: "here" };
  return { machine, hostFolder, options: { ...own, wanted: { kind: "auto" } as const } };
}

test("a taken snapshot that an export to another target has left", async () => {
  const { machine, hostFolder, options } = madeMachine();
  const client: BackupClient = {
    ...machine.client,
    snapshotDestroy: () => Promise.reject(new Error("a planted kill")),
  };
  const store = await BackupStore.openOrCreate(machine.path("store"));
  const runs = {
    store: (more: object) => exportToStore(store, { ...options, ...more }),
    raw: (more: object) => exportRaw({ ...options, target: machine.path("copy"), ...more }),
    qcow2: (more: object) => exportQcow2({ ...options, folder: machine.path("chain"), ...more }),
  };
  for (const [name, run] of Object.entries(runs)) {
    await run({ client });
    const left = machine.snapshotId;
    assert.is.not(left, null);
    machine.isReleasable = true;
    machine.write(MIB, randomBytes(100));
    const target = machine.path(`other-${name}`);
    await exportRaw({ ...options, target });
    await assertSame(target, machine.content);
    assert.is(machine.snapshotId, null);
    assert.equal(readdirSync(hostFolder), []);
  }
  machine.remove();
});

/** The export dies when the daemon has created its snapshot, and before it learns the id. */
function killedInCreate(machine: FakeMachine, isReadOnly: boolean) {
  const { client } = machine;
  const state: { untaken: string | null; isKilled: boolean } = { untaken: null, isKilled: true };
  const dying: BackupClient = {
    ...client,
    snapshotCreate: async (...all) => {
      if (state.untaken !== null) {
        const what = `${machine.device} is in snapshot ${state.untaken}`;
        throw new BlksnapClientError("DEVICE_IN_OTHER_SNAPSHOT", what);
      }
      const made = await client.snapshotCreate(...all);
      if (!state.isKilled) return made;
      state.untaken = made.id;
      throw new BlksnapClientError("CONNECTION_LOST", "a planted kill");
    },
    snapshotInfo: async (device) => {
      const info = await client.snapshotInfo(device);
      return state.untaken === null ? info : { ...info, snapshot_id: state.untaken };
    },
    snapshotDestroy: async (id) => {
      if (id === state.untaken) state.untaken = null;
      return await client.snapshotDestroy(id);
    },
    status: async () => {
      const { trackers, snapshots } = await client.status();
      if (state.untaken === null) return { trackers, snapshots };
      const { device } = machine;
      const image_io = { reads: 0, read_bytes: 0, writes: 0, write_bytes: 0, flushes: 0 };
      const unused = { ...image_io, errors: 0, discards: 0, discard_bytes: 0 };
      const untaken = { id: state.untaken, taken_at: null, read_only_images: isReadOnly };
      const devices = [{ device, image: null, image_io: unused }];
      const all = { ...untaken, releasable_images: isReadOnly, resumed: false, devices };
      return { trackers, snapshots: [all] };
    },
  };
  return { client: dying, state };
}

test("a snapshot that an export has created, and not taken", async () => {
  const { machine, hostFolder, options } = madeMachine();
  const { client, state } = killedInCreate(machine, true);
  const failure = await failureOf(exportRaw({ ...options, client, target: machine.path("one") }));
  assert.is(failure.code, "CONNECTION_LOST");
  assert.is.not(state.untaken, null);
  state.isKilled = false;
  await exportRaw({ ...options, client, target: machine.path("other") });
  await assertSame(machine.path("other"), machine.content);
  assert.is(state.untaken, null);
  assert.equal(readdirSync(hostFolder), []);
  machine.remove();
});

test("an untaken snapshot that no export creates is left alone, and named", async () => {
  const { machine, hostFolder, options } = madeMachine();
  const { client, state } = killedInCreate(machine, false);
  await failureOf(exportRaw({ ...options, client, target: machine.path("one") }));
  state.isKilled = false;
  const failure = await failureOf(exportRaw({ ...options, client, target: machine.path("two") }));
  assert.is(failure.code, "DEVICE_IN_OTHER_SNAPSHOT");
  const { hint = "" } = failure as Error & { hint?: string };
  assert.match(
    hint,
    `Only if nothing will take it: blksnapctl snapshot_destroy --id ${state.untaken}`,
  );
  assert.is.not(state.untaken, null);
  assert.equal(readdirSync(hostFolder), []);
  machine.remove();
});

test.run();
