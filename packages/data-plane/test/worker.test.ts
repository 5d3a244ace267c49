/** The end of a reactor's thread that fails. */
import { spawnSync } from "node:child_process";
import { closeSync, readSync } from "node:fs";
import { socketPair, unblockedWriter } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";

const LOST_STATUS = 70;
const workerUrl = new URL("../dist/worker.js", import.meta.url).href;
/** Its wake-up cannot be read: that is a folder. */
const failing = `
  import { spawnSync } from "node:child_process";
  import { openSync } from "node:fs";
  import { Worker } from "node:worker_threads";
  const heartbeat = new SharedArrayBuffer(4);
  const limits = { index: 3, imageDepth: 4, ioTimeoutMs: 10_000, ringEntries: 64 };
  const options = { ...limits, heartbeat, lostStatus: ${LOST_STATUS}, isFlusherOptional: true };
  // As a supervisor that starts a daemon has it: the first makes the socket non-blocking, the second undoes that.
  process.stderr;
  spawnSync("true", { stdio: ["ignore", "ignore", "inherit"] });
  const workerData = { wakeFd: openSync("/", "r"), options };
  new Worker(new URL(${JSON.stringify(workerUrl)}), { workerData, execArgv: [] }).on("error", () => undefined);
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);`;

/** The process of such a reactor, with `log` as its standard error. */
function statusWith(log: number): number | null {
  const words = ["--input-type=module", "--eval", failing];
  const stdio = ["ignore", "ignore", log] as const;
  return spawnSync(process.execPath, words, { stdio: [...stdio], timeout: 20_000 }).status;
}

test("what a reactor has ended by is in the log before its process ends", () => {
  const [log, reader] = socketPair();
  assert.is(statusWith(log), LOST_STATUS);
  closeSync(log);
  const bytes = Buffer.alloc(65_536);
  const { level, msg } = JSON.parse(bytes.toString("utf8", 0, readSync(reader, bytes)));
  closeSync(reader);
  assert.is(level, 60);
  assert.match(msg, /^reactor 3 has ended: UringError: the wake-up cannot be read/);
});

test("a process ends with its reactor, also where nobody reads the log any more", () => {
  const [log, reader] = socketPair();
  const write = unblockedWriter(log);
  assert.throws(() => {
    for (;;) write(Buffer.alloc(4096));
  }, /EAGAIN/);
  assert.is(statusWith(log), LOST_STATUS);
  closeSync(log);
  closeSync(reader);
});

test.run();
