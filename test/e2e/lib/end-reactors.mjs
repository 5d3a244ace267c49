/**
 * Loaded into the daemon's threads by NODE_OPTIONS: once the file that E2E_END_REACTORS names exists, the
 * main thread gets no turn any more, and then a reactor ends its thread.
 */
import { existsSync } from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import threads from "node:worker_threads";

/** A reactor is woken by the main thread, twice a second: this one has to wait for that. */
const LAST_TURN_MS = 1_000;
/** Later than the main thread's last turn. */
const END_MS = 2_000;
const LOOK_INTERVAL_MS = 20;

const flag = process.env.E2E_END_REACTORS;
const never = new Int32Array(new SharedArrayBuffer(4));
if (flag && threads.isMainThread) {
  const look = setInterval(() => {
    if (!existsSync(flag)) return;
    clearInterval(look);
    setTimeout(() => Atomics.wait(never, 0, 0), LAST_TURN_MS);
  }, LOOK_INTERVAL_MS);
  look.unref();
} else if (flag) {
  const receive = threads.receiveMessageOnPort;
  threads.receiveMessageOnPort = (port) => {
    if (existsSync(flag)) {
      Atomics.wait(never, 0, 0, END_MS);
      process.exit(9);
    }
    return receive(port);
  };
  syncBuiltinESMExports();
}
