/** The end of a reactor's thread after a failure. */
import { spawnSync } from "node:child_process";
import { closeSync, readSync } from "node:fs";
import { socketPair, unblockedWriter } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";

const LOST_STATUS = 70;
const workerUrl = new URL("../dist/worker.js", import.meta.url).href;
/** Its wake-up cannot be read: the descriptor is a folder. */
const failing = `
  import { spawnSync } from "node:child_process";
  import { openSync } from "node:fs";
  import { Worker } from "node:worker_threads";
  const heartbeat = new SharedArrayBuffer(4);
  const limits = { index: 3, imageDepth: 4, ioTimeoutMs: 10_000, ringEntries: 64 };
  const options = { ...limits, heartbeat, lostStatus: ${LOST_STATUS}, isFlusherOptional: true };
  // As under a supervisor: the first line makes the socket non-blocking, the second undoes that.
  process.stderr;
  spawnSync("true", { stdio: ["ignore", "ignore", "inherit"] });
  const workerData = { wakeFd: openSync("/", "r"), options };
  new Worker(new URL(${JSON.stringify(workerUrl)}), { workerData, execArgv: [] }).on("error", () => undefined);
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);`;

/** Exit status of such a reactor's process, with `log` as its standard error. */
function statusWith(log: number): number | null {
  const words = ["--input-type=module", "--eval", failing];
  const stdio = ["ignore", "ignore", log] as const;
  return spawnSync(process.execPath, words, { stdio: [...stdio], timeout: 20_000 }).status;
}

test("the error that ended a reactor is in the log before its process ends", () => {
  const [log, reader] = socketPair();
  assert.is(statusWith(log), LOST_STATUS);
  closeSync(log);
  const bytes = Buffer.alloc(65_536);
  const { level, msg } = JSON.parse(bytes.toString("utf8", 0, readSync(reader, bytes)));
  closeSync(reader);
  assert.is(level, 60);
  assert.match(msg, /^reactor 3 has ended: UringError: the wake-up cannot be read/);
});

test("a process ends with its reactor, even if the log has no reader", () => {
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
