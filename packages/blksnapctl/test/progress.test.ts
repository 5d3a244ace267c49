import { setTimeout as sleep } from "node:timers/promises";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { showWaiting } from "../dist/progress.js";

test("what takes its time is said on one line, which is cleared in the end", async () => {
  let out = "";
  const end = showWaiting("snapshot_create", (text) => (out += text), 1);
  while (!out.includes("for 2 s")) await sleep(1);
  end();
  const lines = out.split("\r\x1b[K");
  assert.is(lines[0], "");
  assert.is(lines[1], "blksnapctl: snapshot_create: under way for 1 s; Ctrl-C gives up");
  assert.is(lines.at(-1), "");
  const told = out;
  await sleep(5);
  assert.is(out, told);
});

test("what is done at once leaves no trace", () => {
  let out = "";
  showWaiting("attach", (text) => (out += text))();
  assert.is(out, "");
});

test.run();
