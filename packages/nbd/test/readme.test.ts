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

/** Output of the README's examples, in order. */
const PRINTED = [/^datadata\n.*lengthBytes: 4096, flags: 1/, /^67108864\n$/];

function runs(example: string, printed: RegExp): void {
  const file = join(import.meta.dirname, `readme-${process.pid}.mjs`);
  writeFileSync(file, example);
  try {
    const { status, stdout, stderr } = spawnSync(process.execPath, [file], { encoding: "utf8" });
    assert.is(stderr, "");
    assert.is(status, 0);
    assert.match(stdout, printed);
  } finally {
    rmSync(file);
  }
}

test("the README's examples run", () => {
  const examples = [...readme.matchAll(/^```js\n(.*?)^```$/gms)].map(([, text = ""]) => text);
  assert.is(examples.length, PRINTED.length);
  for (const [index, printed] of PRINTED.entries()) runs(examples[index] ?? "", printed);
});

test.run();
