import { execFileSync, spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { packageDir, withFolder } from "./support.js";

function example(name: string, ...args: string[]): string {
  const path = join(packageDir, "examples", name);
  return execFileSync(process.execPath, [path, ...args], { encoding: "utf8" });
}

for (const size of [0, 1, 262_144, 9_000_001]) {
  test(`copy-file copies ${size} bytes`, () => {
    withFolder((folder) => {
      const [from, to] = [join(folder, "from"), join(folder, "to")];
      writeFileSync(from, randomBytes(size));
      assert.match(example("copy-file.mjs", from, to), `${size} bytes copied`);
      assert.equal(readFileSync(to), readFileSync(from));
    });
  });
}

test("copy-file says what failed", () => {
  withFolder((folder) => {
    writeFileSync(join(folder, "from"), randomBytes(5000));
    const path = join(packageDir, "examples", "copy-file.mjs");
    const args = [path, join(folder, "from"), "/dev/full"];
    const run = spawnSync(process.execPath, args, { encoding: "utf8" });
    assert.is(run.status, 1);
    assert.match(run.stderr, "ENOSPC");
  });
});

test("promise-ring allocates and syncs", () => {
  assert.is(example("promise-ring.mjs"), "fallocate: done\nfsync: done\n67108864 bytes\n");
});

test.run();
