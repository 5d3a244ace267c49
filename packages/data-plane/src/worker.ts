/** The thread of one reactor. */
import { writeSync } from "node:fs";
import { parentPort, workerData } from "node:worker_threads";
import { assert, endProcessWithThread, type ReactorWorkerData } from "@blksnap/uring";
import { errorText } from "./error-text.js";
import { hasFaultHook } from "./fault-points.js";
import type { FromReactor, ReactorSettings } from "./messages.js";
import { ReactorServer } from "./reactor-server.js";
import { WarmUp } from "./warm-up.js";

/** As pino writes it. */
const FATAL = 60;

assert(parentPort !== null, "this module is for a worker thread");
const port = parentPort;
const { wakeFd, options } = workerData as ReactorWorkerData;
const settings = options as ReactorSettings;

function say(message: FromReactor): void {
  port.postMessage(message);
}

/** To the log itself: the main thread may not come to it before the process has ended. */
function sayLast(error: unknown): void {
  const msg = `reactor ${settings.index} has ended: ${errorText(error)}`;
  writeSync(2, `${JSON.stringify({ level: FATAL, time: Date.now(), msg })}\n`);
}

/** When it ends nothing serves its requests any more, and their writers wait for the next process. */
const { lostStatus } = settings;
const untie = lostStatus === undefined ? () => undefined : endProcessWithThread(lostStatus);
// A test counts the fault points that the devices come by, not those of the warm-up.
const startWarmUp = hasFaultHook ? undefined : WarmUp.start;
const server = new ReactorServer({ wakeFd, port, say, settings, startWarmUp });
try {
  server.run();
} catch (error) {
  if (lostStatus !== undefined) sayLast(error);
  throw error;
}
untie();
port.close();
