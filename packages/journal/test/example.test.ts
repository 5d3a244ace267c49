import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";

test("the counter counts its runs", () => {
  const directory = mkdtempSync(join(tmpdir(), "blksnap-journal-"));
  try {
    for (const run of [1, 2, 3]) {
      const args = ["examples/counter.mjs", join(directory, "journal")];
      const { stdout, stderr } = spawnSync(process.execPath, args, { encoding: "utf8" });
      assert.is(stdout, `run ${run}\n`, stderr);
    }
  } finally {
    rmSync(directory, { recursive: true });
  }
});

test.run();
