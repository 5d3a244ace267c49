import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { StateDirectory } from "../../dist/records/state-directory.js";
import { removeUnclaimedFiles } from "../../dist/recovery/remove-unclaimed-files.js";
import type { Snapshot } from "../../dist/snapshot/snapshot.js";

const HELD = "11111111-2222-4333-8444-555555555555";
const LOST = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee";
const AREA = "12345678-1234-4234-8234-123456789abc";
const GONE = "99999999-8888-4777-8666-555555555555";

test("unclaimed files are removed; files that a record may name stay", () => {
  const path = mkdtempSync(join(tmpdir(), "blksnap-unclaimed-"));
  const state = new StateDirectory(path);
  try {
    state.writeRecord("tracker-1", {});
    state.writeRecord(`snapshot-${HELD}`, {});
    state.writeRecord(`snapshot-${LOST}`, {});
    const stay = [
      ...["cbt-1", `area-${HELD}-1`, `area-${HELD}-${AREA}`, `blksnap-store-${HELD}-0`],
      // Files of an unusable record, of another owner, or of a user.
      ...[`area-${LOST}-1`, `blksnap-store-${LOST}-0`, "cbt-notes", "blksnapd.sock", "area-x"],
    ];
    const go = [
      ...[
        "cbt-2",
        `area-${HELD}-2`,
        `area-${GONE}-1`,
        `area-${GONE}-${AREA}`,
        `blksnap-store-${GONE}-0`,
      ],
      ...["tracker-1.record.new", "cbt-grown-1"],
    ];
    for (const name of [...stay, ...go]) writeFileSync(join(path, name), "");
    const before = new Set(readdirSync(path));
    const maps = [`area-${HELD}-1`, `area-${HELD}-${AREA}`];
    const members = maps.map((name, index) => [index, { area: { map: { name } } }] as const);
    const held = { id: HELD, members: new Map(members) };
    const removed = removeUnclaimedFiles(state, [held as unknown as Snapshot]);
    assert.equal(removed.sort(), [...go].sort());
    const left = [...before].filter((name) => !go.includes(name)).sort();
    assert.equal(readdirSync(path).sort(), left);
  } finally {
    state.close();
    rmSync(path, { recursive: true });
  }
});

test.run();
