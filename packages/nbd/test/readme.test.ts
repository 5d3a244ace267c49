import { spawnSync } from "node:child_process";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { packageDir } from "./support.js";

const readme = readFileSync(join(packageDir, "README.md"), "utf8");

test("the README names every error code", () => {
  const source = readFileSync(join(packageDir, "src", "errors.ts"), "utf8");
  const codes = [...source.matchAll(/\| "([A-Z_]+)"/g)].map(([, code]) => code);
  assert.ok(codes.length > 8);
  for (const code of codes) assert.match(readme, `\`${code}\``);
});

test("the README's example runs", () => {
  const [, example] = /```js\n([^`]*(?:`[^`]+)*?)```/.exec(readme) ?? [];
  assert.ok(example !== undefined);
  const file = join(import.meta.dirname, `readme-${process.pid}.mjs`);
  writeFileSync(file, example);
  try {
    const { status, stdout, stderr } = spawnSync(process.execPath, [file], { encoding: "utf8" });
    assert.is(stderr, "");
    assert.is(status, 0);
    assert.match(stdout, /^datadata\n.*lengthBytes: 4096, flags: 1/);
  } finally {
    rmSync(file);
  }
});

test.run();
