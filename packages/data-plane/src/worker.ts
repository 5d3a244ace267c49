/** The thread of one reactor. */
import { parentPort, workerData } from "node:worker_threads";
import { errnoNameOf } from "@blksnap/errors";
import {
  assert,
  canLookOut,
  endProcessWithThread,
  type ReactorWorkerData,
  unblockedWriter,
} from "@blksnap/uring";
import { errorText } from "./error-text.js";
import { hasFaultHook } from "./fault-points.js";
import type { FromReactor, ReactorSettings } from "./messages.js";
import { ReactorServer } from "./reactor-server.js";
import { WarmUp } from "./warm-up.js";

/** pino's level. */
const FATAL = 60;
const STDERR = 2;
/** How long to wait if the log has no room for the last line: users wait for the next process meanwhile. */
const LAST_LINE_WAIT_MS = 1000;
const FULL_PAUSE_MS = 10;

assert(parentPort !== null, "this module is for a worker thread");
const port = parentPort;
const { wakeFd, options } = workerData as ReactorWorkerData;
const settings = options as ReactorSettings;

function say(message: FromReactor): void {
  port.postMessage(message);
}

/** Writes directly to the log: the main thread may not get to it before the process ends. */
function sayLast(error: unknown): void {
  const msg = `reactor ${settings.index} has ended: ${errorText(error)}`;
  let left: Uint8Array = Buffer.from(
    `${JSON.stringify({ level: FATAL, time: Date.now(), msg })}\n`,
  );
  const write = unblockedWriter(STDERR);
  const clock = new Int32Array(new SharedArrayBuffer(4));
  for (let waitMs = LAST_LINE_WAIT_MS; left.length > 0 && waitMs > 0; ) {
    try {
      left = left.subarray(write(left));
    } catch (failure) {
      if (errnoNameOf(failure) !== "EAGAIN") return;
      waitMs -= FULL_PAUSE_MS;
      Atomics.wait(clock, 0, 0, FULL_PAUSE_MS);
    }
  }
}

/** Exit with this status when the thread ends: nothing serves its requests any more, and writers wait. */
const { lostStatus } = settings;
const untie = lostStatus === undefined ? () => undefined : endProcessWithThread(lostStatus);
// A test counts the fault points that devices pass, not those of the warm-up.
const startWarmUp = hasFaultHook ? undefined : WarmUp.start;
const isLively = canLookOut();
const server = new ReactorServer({ wakeFd, port, say, settings, startWarmUp, isLively });
try {
  server.run();
} catch (error) {
  if (lostStatus !== undefined) sayLast(error);
  throw error;
}
untie();
port.close();
