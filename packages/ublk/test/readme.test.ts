import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { packageDir } from "./support.js";

function example(name: string, ...args: string[]) {
  const path = join(packageDir, "examples", name);
  return spawnSync(process.execPath, [path, ...args], { encoding: "utf8" });
}

test("the README names every error code", () => {
  const readme = readFileSync(join(packageDir, "README.md"), "utf8");
  const source = readFileSync(join(packageDir, "src", "errors.ts"), "utf8");
  const codes = [...source.matchAll(/\| "([A-Z_]+)"/g)].map(([, code]) => code);
  assert.ok(codes.length > 8);
  for (const code of codes) assert.match(readme, `\`${code}\``);
});

test("the command line reports wrong usage, and a missing module, in one line", () => {
  const wrong = example("rublk.mjs", "turn");
  assert.is(wrong.status, 1);
  assert.match(wrong.stderr, /^rublk: usage: .*\n$/);
  if (existsSync("/dev/ublk-control")) return;
  for (const args of [["features"], ["add", "-t", "null"]]) {
    const { status, stderr } = example("rublk.mjs", ...args);
    assert.is(status, 1);
    assert.match(stderr, /^rublk: .*modprobe ublk_drv.*\n$/);
  }
});

test.run();
