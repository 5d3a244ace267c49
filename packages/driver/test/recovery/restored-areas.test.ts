/** Diff areas that are restored after a reboot, from their records. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DiffAreaMap } from "@blksnap/engine";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { AreaJournalFile } from "../../dist/records/area-journal-file.js";
import { KeptFile, RECORD_SUFFIX } from "../../dist/records/file-names.js";
import { StateDirectory } from "../../dist/records/state-directory.js";
import { restoreAfterReboot } from "../../dist/recovery/after-reboot.js";
import { patientDirectory } from "../support/patient-directory.js";

const test = suite("restored areas");

const [SNAPSHOT, TRACKER, AREA, ANOTHER] = [1, 2, 3, 4].map(
  (i) => `00000000-0000-4000-8000-00000000000${i}`,
) as [string, string, string, string];
/** For a daemon whose fronts serve, so that nothing is waited for. */
const KNOWN = {
  snapshots: new Set<string>(),
  transient: new Set<string>(),
  journals: new Set<string>(),
  trackers: new Set([ANOTHER]),
  numbers: new Map<string, number>(),
  lastNumber: 6,
  unknownFronts: [] as string[],
  isBoot: false,
};

/** Restores a snapshot of one device, whose area has a journal. */
async function restored(
  member: { area?: string; journal: string; errorCode?: number },
  known = KNOWN,
) {
  const root = mkdtempSync(join(tmpdir(), "blksnap-restored-"));
  mkdirSync(join(root, "run"));
  const state = new StateDirectory(join(root, "run"));
  const persistent = patientDirectory(join(root, "lib"));
  const said: string[] = [];
  const log = (_: unknown, text: string) => void said.push(text);
  const logger = { info: log, warn: log, error: log, fatal: log };
  try {
    await persistent.own();
    const tracking = { capacityBytes: 2 ** 20, logicalBlockBytes: 512 };
    const tracker = { uuid: TRACKER, device: "/dev/a", attached: true, tracking, chunkShift: 18 };
    await persistent.writeRecord(KeptFile.trackerRecord.name(TRACKER), tracker);
    await (await AreaJournalFile.create(persistent, member.journal)).close();
    await persistent.writeRecord(KeptFile.snapshotRecord.name(SNAPSHOT), {
      snapshot: { id: SNAPSHOT, state: "taken", stores: [] },
      members: [{ tracker: TRACKER, lost: false, ...member }],
    });
    const found = await restoreAfterReboot({ state, persistent, logger } as never, known);
    const [snapshot] = found.snapshots;
    const map = snapshot?.members[0]?.map;
    if (typeof map === "string") {
      const file = state.openMap(map);
      assert.is(file.lengthBytes, DiffAreaMap.byteLength({ ...tracking, ...SHIFTS }));
      state.closeMap(file);
    }
    const { pending } = found;
    return { snapshot, pending, said: said.join("\n"), files: await persistent.names() };
  } finally {
    persistent.close();
    state.close();
    rmSync(root, { recursive: true });
  }
}

const SHIFTS = { chunkShift: 18, blockShift: 12 };

test("an area is restored from the journal that has its id", async () => {
  const { snapshot } = await restored({ area: AREA, journal: AREA });
  assert.is(snapshot?.state, "taken");
  assert.is(snapshot?.members[0]?.area, AREA);
});

test("an area is restored with the error of its loss", async () => {
  const { snapshot } = await restored({ area: AREA, journal: AREA, errorCode: -28 });
  assert.is(snapshot?.members[0]?.errorCode, -28);
  const whole = await restored({ area: AREA, journal: AREA });
  assert.is(whole.snapshot?.members[0]?.errorCode, undefined);
});

test("an area that an older daemon has not named has its journal's id", async () => {
  const { snapshot } = await restored({ journal: AREA });
  assert.is(snapshot?.members[0]?.area, AREA);
});

test("an area is not restored from another area's journal", async () => {
  const { snapshot, pending, said } = await restored({ area: AREA, journal: ANOTHER });
  assert.is(snapshot?.state, "destroying");
  assert.match(said, `its journal is of the area ${ANOTHER}, not of ${AREA}`);
  assert.equal(pending[0]?.journals, [ANOTHER], "it goes before the device is attached");
});

test("a snapshot that was given up is forgotten by the next daemon, and not restored by a later boot", async () => {
  const snapshots = new Set([SNAPSHOT]);
  const journals = new Set([AREA]);
  const member = { area: AREA, journal: AREA };
  const kept = await restored(member, { ...KNOWN, snapshots, journals });
  assert.is(kept.snapshot, undefined, "it is there");
  const its = [`${KeptFile.snapshotRecord.name(SNAPSHOT)}.record`, KeptFile.areaJournal.name(AREA)];
  for (const name of its) assert.ok(kept.files.includes(name), name);
  const transient = snapshots;
  const { files } = await restored(member, { ...KNOWN, snapshots, journals, transient });
  for (const name of its) assert.not(files.includes(name), name);
  assert.ok(files.includes(`${KeptFile.trackerRecord.name(TRACKER)}.record`));
});

test("a journal of a tracker without a record is removed; one with a record that is unusable stays", async () => {
  const root = mkdtempSync(join(tmpdir(), "blksnap-restored-"));
  const persistent = patientDirectory(root);
  const logger = { info() {}, warn() {}, error() {}, fatal() {} };
  try {
    await persistent.own();
    const record = KeptFile.trackerRecord.name(ANOTHER) + RECORD_SUFFIX;
    const [orphan, claimed, attached] = [TRACKER, ANOTHER, AREA].map((uuid) =>
      KeptFile.cbtJournal.name(uuid),
    ) as [string, string, string];
    for (const name of [orphan, claimed, attached, record]) writeFileSync(join(root, name), "");
    persistent.inUse.add(AREA);
    await restoreAfterReboot({ persistent, logger } as never, KNOWN);
    const left = (await persistent.names()).filter((name) => name !== KeptFile.lock);
    assert.equal(left.sort(), [claimed, attached, record].sort());
  } finally {
    persistent.close();
    rmSync(root, { recursive: true });
  }
});

test.run();
