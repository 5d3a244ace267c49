import { spawn } from "node:child_process";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { packageDir } from "./support.js";

const POLLIN = 1;
const INTERRUPTIONS = 5;
const CHILD = `
  import { Ring, preparePoll } from "@blksnap/uring";
  import { writeSync } from "node:fs";
  process.on("SIGUSR2", () => {});
  const ring = new Ring({ entries: 8, flags: 0x3000 });
  preparePoll(ring, 0, ${POLLIN}, 42, 0);
  writeSync(1, "waiting\\n");
  while (ring.ready() === 0) {
    ring.submitAndWait(1);
    if (ring.ready() === 0) writeSync(1, "interrupted\\n");
  }
  const cqe = ring.headIndex();
  console.log(JSON.stringify({ low: ring.cqes32[cqe], result: ring.cqes32[cqe + 2] }));
`;

test("signals interrupt a wait, and lose nothing", async () => {
  const args = ["--input-type=module", "--eval", CHILD];
  const child = spawn(process.execPath, args, { cwd: packageDir });
  let output = "";
  child.stdout.on("data", (chunk) => {
    output += chunk;
  });
  const closed = once(child, "close");
  while (!output.includes("waiting")) await sleep(10);
  while (output.split("interrupted").length <= INTERRUPTIONS && child.exitCode === null) {
    child.kill("SIGUSR2");
    child.kill("SIGSTOP");
    child.kill("SIGCONT");
    await sleep(5);
  }
  // Only now what it waits for.
  child.stdin.end("x");
  const [status] = await closed;
  assert.is(status, 0);
  const last = output.trimEnd().split("\n").at(-1) ?? "";
  const { low, result } = JSON.parse(last) as { low: number; result: number };
  assert.is(low, 42);
  assert.is(result & POLLIN, POLLIN);
});

test.run();
