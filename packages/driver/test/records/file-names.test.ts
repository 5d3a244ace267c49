/** Names of files. They survive the daemon that made them, so they must not change. */
import { suite } from "uvu";
import * as assert from "uvu/assert";
import {
  isUnfinishedRecord,
  KeptFile,
  recordOf,
  StateFile,
} from "../../dist/records/file-names.js";

const test = suite("file-names");

const [ONE, OTHER] = [
  "a8b4d1f0-0d4e-4a57-9c1e-3f5b7a90e2c6",
  "12345678-9abc-4def-8123-456789abcdef",
];

test("names are made of ids, and give them back", () => {
  const { trackerRecord, cbtMap, snapshotRecord, areaMap, store, exchange } = StateFile;
  assert.is(trackerRecord.name(7), "tracker-7");
  assert.is(cbtMap.name(7), "cbt-7");
  assert.is(snapshotRecord.name(ONE), `snapshot-${ONE}`);
  assert.is(areaMap.name(ONE, OTHER), `area-${ONE}-${OTHER}`);
  assert.is(store.name(ONE, 2), `blksnap-store-${ONE}-2`);
  assert.equal(areaMap.idsIn(areaMap.name(ONE, OTHER)), [ONE, OTHER]);
  assert.is(exchange.name("254:3"), "exchange-254:3");
  assert.equal(exchange.idsIn("exchange-254:3"), ["254:3"]);
  // Of older daemons.
  assert.equal(areaMap.idsIn(`area-${ONE}-7`), [ONE, "7"]);
  assert.equal(store.idsIn(store.name(ONE, 2)), [ONE, "2"]);
  assert.is(KeptFile.trackerRecord.name(ONE), `tracker-${ONE}`);
  assert.is(KeptFile.cbtJournal.name(ONE), `cbt-${ONE}.journal`);
  assert.is(KeptFile.snapshotRecord.name(ONE), `snapshot-${ONE}`);
  assert.is(KeptFile.areaJournal.name(ONE), `area-${ONE}.journal`);
  assert.equal(KeptFile.areaJournal.idsIn(`area-${ONE}.journal`), [ONE]);
});

test("a name that only looks similar gives no ids", () => {
  for (const name of ["cbt-", "cbt-7x", "cbt-notes", "xcbt-7"]) {
    assert.is(StateFile.cbtMap.idsIn(name), undefined);
  }
  for (const name of [`area-${ONE}.journal.new`, `area-${ONE}xjournal`, "area-7.journal"]) {
    assert.is(KeptFile.areaJournal.idsIn(name), undefined);
  }
});

test("each file belongs to a record, or is unclaimed", () => {
  const expected: Record<string, string | undefined> = {
    "cbt-7": "tracker-7",
    [`area-${ONE}-${OTHER}`]: `snapshot-${ONE}`,
    [`area-${ONE}-7`]: `snapshot-${ONE}`,
    [`blksnap-store-${ONE}-0`]: `snapshot-${ONE}`,
    "tracker-7.record-copy": "tracker-7",
    "handover.record-copy": StateFile.handover,
    "tracker-7.record": undefined,
    "exchange-254:3": undefined,
    "blksnapd.sock": undefined,
    lock: undefined,
  };
  for (const [name, record] of Object.entries(expected)) assert.is(recordOf(name), record, name);
  assert.ok(isUnfinishedRecord("tracker-7.record.new"));
  assert.ok(isUnfinishedRecord("tracker-7.record-copy.new"));
  assert.not.ok(isUnfinishedRecord("notes.new"));
});

test.run();
