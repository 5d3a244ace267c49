/** A reactor that echoes messages; "stop" ends it, "die" ends its thread, "hang" it never answers. */
import { parentPort, workerData } from "node:worker_threads";
import { assert, Reactor, type ReactorWorkerData, threadId } from "@blksnap/uring";

assert(parentPort !== null, "this module is for a worker thread");
const port = parentPort;
const { wakeFd, options } = workerData as ReactorWorkerData;
if (options === "fail") throw new Error("failed to start");

const reactor = new Reactor({
  wakeFd,
  port,
  onMessage(message) {
    if (message === "stop") reactor.stop();
    else if (message === "die") process.exit(3);
    else port.postMessage({ echo: message, thread: threadId() });
  },
  onError: (error) => port.postMessage({ error: (error as Error).message }),
});
reactor.run();
port.close();
