import { spawn } from "node:child_process";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { packageDir } from "./support.js";

const CHILD = `
  import { MappedMemory, Ring, prepareNop, prepareTimeout, low32, high32 } from "@blksnap/uring";
  import { writeSync } from "node:fs";
  process.on("SIGUSR2", () => {});
  const ring = new Ring({ entries: 8, flags: 0x3000 });
  const page = MappedMemory.anonymous(4096);
  new BigInt64Array(page.buffer).set([0n, 600_000_000n]);
  const { address } = page;
  prepareTimeout(ring, low32(address), high32(address), 42, 0);
  writeSync(1, "waiting\\n");
  let calls = 0;
  while (ring.ready() === 0) {
    ring.submitAndWait(1);
    calls++;
  }
  const cqe = ring.headIndex();
  console.log(JSON.stringify({ calls, low: ring.cqes32[cqe], result: ring.cqes32[cqe + 2] }));
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
  for (let i = 0; i < 20 && child.exitCode === null; i++) {
    child.kill("SIGUSR2");
    child.kill("SIGSTOP");
    child.kill("SIGCONT");
    await sleep(5);
  }
  const [status] = await closed;
  assert.is(status, 0);
  const seen = JSON.parse(output.split("\n")[1]) as { calls: number; low: number; result: number };
  assert.ok(seen.calls > 1, "no wait was interrupted");
  assert.is(seen.low, 42);
  assert.is(seen.result, -62);
});

test.run();
