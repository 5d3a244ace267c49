import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { test } from "uvu";
import * as assert from "uvu/assert";

function run(name: string, env: Record<string, string> = {}): string {
  const path = fileURLToPath(new URL(`../examples/${name}`, import.meta.url));
  const options = { encoding: "utf8", env: { ...process.env, ...env } } as const;
  const { status, stdout, stderr } = spawnSync(process.execPath, [path], options);
  assert.is(status, 0, stderr);
  return stdout;
}

test("first-snapshot shows the old data in the image and the new in the original", () => {
  const output = run("first-snapshot.mjs");
  assert.match(output, "original: NEW");
  assert.match(output, "image: old");
  assert.match(output, "copy: 4096 bytes at 4096 to slot 0");
});

test("the bench measures all kinds of requests", () => {
  const lines = run("bench.mjs", { BENCH_COUNT: "4096" }).trim().split("\n");
  assert.is(lines.length, 6);
  for (const line of lines) assert.match(line, /\d+ ns$/);
});

test.run();
