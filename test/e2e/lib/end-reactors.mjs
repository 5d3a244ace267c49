/**
 * Loaded into the daemon's threads by NODE_OPTIONS: once the file in E2E_END_REACTORS exists, a reactor that handles
 * messages creates another file beside it, the main thread gets no turn any more, and then the reactor ends its
 * thread.
 */
import { existsSync, writeFileSync } from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import threads from "node:worker_threads";

/** Later than the main thread's last turn. */
const END_MS = 2_000;
const LOOK_INTERVAL_MS = 20;

const flag = process.env.E2E_END_REACTORS;
const met = `${flag}.met`;
const never = new Int32Array(new SharedArrayBuffer(4));
if (flag && threads.isMainThread) {
  const look = setInterval(() => {
    if (existsSync(met)) Atomics.wait(never, 0, 0);
  }, LOOK_INTERVAL_MS);
  look.unref();
} else if (flag) {
  const receive = threads.receiveMessageOnPort;
  threads.receiveMessageOnPort = (port) => {
    if (existsSync(flag)) {
      writeFileSync(met, "");
      Atomics.wait(never, 0, 0, END_MS);
      process.exit(9);
    }
    return receive(port);
  };
  syncBuiltinESMExports();
}
