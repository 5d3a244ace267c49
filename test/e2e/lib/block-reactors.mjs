/**
 * Loaded into the daemon's threads by NODE_OPTIONS: while the file that E2E_BLOCK_REACTORS names exists,
 * a reactor that takes its messages sleeps instead of turning.
 */
import { existsSync } from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import threads from "node:worker_threads";

const flag = process.env.E2E_BLOCK_REACTORS;
if (!threads.isMainThread && flag) {
  const receive = threads.receiveMessageOnPort;
  const never = new Int32Array(new SharedArrayBuffer(4));
  threads.receiveMessageOnPort = (port) => {
    while (existsSync(flag)) Atomics.wait(never, 0, 0, 50);
    return receive(port);
  };
  syncBuiltinESMExports();
}
