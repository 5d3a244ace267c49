import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DeviceMark } from "@blksnap/ublk";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { UblkFrontend } from "../../dist/frontend/ublk-frontend.js";
import type { SnapshotRecord } from "../../dist/records/records.js";
import { StateDirectory } from "../../dist/records/state-directory.js";
import { discard, rollBack } from "../../dist/recovery/discard.js";

let folder: string;
let state: StateDirectory;
test.before.each(() => {
  folder = mkdtempSync(join(tmpdir(), "blksnap-discard-"));
  state = new StateDirectory(folder);
});
test.after.each(() => {
  state.close();
  rmSync(folder, { recursive: true });
});

function record(id: string, now: SnapshotRecord["state"], image: number): SnapshotRecord {
  const members = [{ tracker: 1, map: null, image, journal: null }];
  return { id, state: now, members, stores: [] } as unknown as SnapshotRecord;
}

/** A kernel with devices of these marks, by number. */
function kernel(marks: Record<number, number>) {
  const deleted: number[] = [];
  const ublk = {
    deviceInfo: async (id: number) =>
      id in marks ? { id, serverFlags: marks[id], serverFlagsHigh: state.owner } : undefined,
    deleteDevice: async (id: number) => deleted.push(id),
  };
  const logger = { warn: () => undefined, error: () => undefined };
  const frontend = new UblkFrontend(ublk as never, state.owner, logger as never);
  return { context: { frontend, logger, state } as never, deleted };
}

test("an image is removed with its snapshot", async () => {
  const { context, deleted } = kernel({ 3: DeviceMark.IMAGE });
  await discard(context, record("a", "destroying", 3), []);
  assert.equal(deleted, [3]);
});

test("a front that has the number of a former image is left alone", async () => {
  const { context, deleted } = kernel({ 3: DeviceMark.FRONT });
  await discard(context, record("a", "destroying", 3), []);
  await rollBack(context, record("b", "taking", 3), []);
  assert.equal(deleted, []);
});

test("an image of another snapshot that has the number now is left alone", async () => {
  const { context, deleted } = kernel({ 3: DeviceMark.IMAGE });
  const old = record("a", "destroying", 3);
  const all = [old, record("b", "taken", 3)];
  await discard(context, old, all);
  assert.equal(deleted, []);
});

test.run();
