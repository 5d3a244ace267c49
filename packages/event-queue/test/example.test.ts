import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";

test("the example prints what the README shows", () => {
  const path = join(import.meta.dirname, "..", "examples", "watch.mjs");
  const lines = execFileSync(process.execPath, [path], { encoding: "utf8" }).trimEnd().split("\n");
  for (const line of [
    "worker: low_free_space",
    "worker follows: corrupted",
    "log: 1 low_free_space",
    "log: 2 corrupted",
    "nothing more within 20 ms: timeout",
    "after close: closed",
    "log: end",
  ]) {
    assert.ok(lines.includes(line), `${line} in\n${lines.join("\n")}`);
  }
});

test.run();
