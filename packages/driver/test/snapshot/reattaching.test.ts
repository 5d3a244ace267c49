import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { CorruptedEvent } from "@blksnap/api";
import { test } from "uvu";
import * as assert from "uvu/assert";
import type { SnapshotRecord } from "../../dist/records/records.js";
import { StateDirectory } from "../../dist/records/state-directory.js";
import { Snapshot } from "../../dist/snapshot/snapshot.js";
import type { Tracker } from "../../dist/tracker/tracker.js";

const ID = "6f0a3f5e-94a2-4c55-9c0e-0d9a3e5a7a11";
const record: SnapshotRecord = {
  id: ID,
  state: "taken",
  createdAt: "2026-01-01T00:00:00.000Z",
  takenAt: "2026-01-01T00:00:01.000Z",
  stallUs: 1,
  limitBytes: 2 ** 20,
  alignmentBytes: 512,
  slotBytes: 262_144,
  onOverflow: { policy: "break-snapshot" },
  persistent: false,
  stores: [],
  members: [{ tracker: 1, area: "the area", map: "area-1", image: 2, journal: null }],
  events: [],
  nextEvent: 1,
};
const noSpace = {
  type: "no_space",
  requestedSectors: 8,
  freeBytes: 0,
  usedBytes: 2 ** 20,
  limitBytes: 2 ** 20,
} as const;

test("an event of the stores during recovery does not remove the members from the snapshot's record", () => {
  const folder = mkdtempSync(join(tmpdir(), "blksnap-rejoin-"));
  const state = new StateDirectory(folder);
  try {
    state.writeRecord(`snapshot-${ID}`, record);
    const onRecord = () => {
      const [found] = state.readRecords("snapshot-");
      return found?.problem === undefined ? (found?.value as SnapshotRecord) : undefined;
    };
    const snapshot = new Snapshot({ state } as never, record, true);
    snapshot.events.push(noSpace);
    assert.equal(onRecord(), record);

    const map = { name: "area-1", fd: -1, lengthBytes: 0 };
    snapshot.addMember({ id: 1 } as Tracker, { id: "the area", map }, 2);
    snapshot.membersReattached();
    assert.equal(onRecord()?.members, record.members);
    assert.is(onRecord()?.events.length, 1);
  } finally {
    state.close();
    rmSync(folder, { recursive: true });
  }
});

test("a store's loss during recovery is recorded, and the record keeps all members", () => {
  const folder = mkdtempSync(join(tmpdir(), "blksnap-rejoin-"));
  const state = new StateDirectory(folder);
  try {
    state.writeRecord(`snapshot-${ID}`, record);
    const onRecord = () => {
      const [found] = state.readRecords("snapshot-");
      return found?.problem === undefined ? (found?.value as SnapshotRecord) : undefined;
    };
    const logger = { error: () => undefined };
    const snapshot = new Snapshot({ state, logger } as never, record, true);
    snapshot.cuts.note(0, 3, "cut");
    assert.equal(onRecord(), { ...record, storeCuts: [{ store: 0, firstSlotIndex: 3 }] });
    snapshot.forget();
    snapshot.cuts.note(0, 0, "cut");
    assert.is(onRecord(), undefined, "one that is gone has no record");
  } finally {
    state.close();
    rmSync(folder, { recursive: true });
  }
});

test("a snapshot that an earlier daemon only created does not count as taken by it", () => {
  const folder = mkdtempSync(join(tmpdir(), "blksnap-taker-"));
  const state = new StateDirectory(folder);
  const isResumed = (its: SnapshotRecord["state"], isReattaching: boolean) =>
    new Snapshot({ state } as never, { ...record, state: its }, isReattaching).isResumed;
  assert.ok(isResumed("taken", true));
  assert.not(isResumed("created", true));
  assert.not(isResumed("created", false));
  state.close();
  rmSync(folder, { recursive: true });
});

test("to an older daemon, a releasable image does not look like one that was always read-only", () => {
  const folder = mkdtempSync(join(tmpdir(), "blksnap-freed-"));
  const state = new StateDirectory(folder);
  const one = { ...record, members: [], readOnlyImages: true, releasableImages: true };
  new Snapshot({ state } as never, one).save();
  const [found] = state.readRecords("snapshot-");
  const saved = (found as { value: SnapshotRecord }).value;
  assert.is(saved.readOnlyImages, false);
  const { readOnlyImages, releasableImages } = new Snapshot({ state } as never, saved);
  assert.equal([readOnlyImages, releasableImages], [true, true]);
  state.close();
  rmSync(folder, { recursive: true });
});

test("a loss is reported with the name and number by which users know the device", () => {
  const folder = mkdtempSync(join(tmpdir(), "blksnap-loss-"));
  const state = new StateDirectory(folder);
  const snapshot = new Snapshot({ state } as never, { ...record, state: "created" });
  const tell = (tracker: object) => {
    const all = { backing: { deviceNumber: (254 << 8) | 7 }, recordLoss: () => undefined };
    snapshot.fault({ ...all, ...tracker } as unknown as Tracker, "the area", 116);
    const { device, major, minor } = snapshot.events.list().at(-1) as CorruptedEvent;
    return [device, major, minor];
  };
  const live = { device: "/dev/mapper/vg-data", deviceNumber: "254:3" };
  assert.equal(tell(live), ["/dev/mapper/vg-data", 254, 3], "not those of the clone");
  assert.equal(tell({ device: "/srv/a.img", deviceNumber: null }), ["/srv/a.img", 254, 7]);
  state.close();
  rmSync(folder, { recursive: true });
});

test.run();
