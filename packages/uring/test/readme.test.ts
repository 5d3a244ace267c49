import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { packageDir, runChild } from "./support.js";

const readme = readFileSync(join(packageDir, "README.md"), "utf8");

test("the first example of the README runs", () => {
  const text = /```js\n(.*?)```/s.exec(readme)?.[1] ?? "";
  const child = runChild(text.replace("/etc/hostname", "/proc/sys/kernel/ostype"));
  assert.is(child.status, 0, child.errors);
  assert.is(child.output, "7 Linux\n\n");
});

test("the README names every error code", () => {
  const source = readFileSync(join(packageDir, "src", "errors.ts"), "utf8");
  const codes = [...source.matchAll(/\| "([A-Z_]+)"/g)].map(([, code]) => code);
  assert.ok(codes.length > 5);
  for (const code of codes) assert.match(readme, `\`${code}\``);
});

test.run();
