/** The thread of one reactor: takes requests of the main thread for the devices that it owns. */
import { writeSync } from "node:fs";
import { parentPort, workerData } from "node:worker_threads";
import {
  assert,
  becomeIoFlusher,
  endProcessWithThread,
  Reactor,
  type ReactorWorkerData,
} from "@blksnap/uring";
import { carriedError } from "./carried-error.js";
import { take as takeClaim } from "./claim.js";
import { errorText } from "./error-text.js";
import { IoTicker } from "./io-ticker.js";
import { carryOutAreaJournal, carryOutJournal } from "./journal-requests.js";
import { loseSlots } from "./lost-slots.js";
import type {
  AttachRequest,
  CloseAreaReply,
  DeviceRequest,
  FromReactor,
  MarkDirtyRequest,
  ReactorRequest,
  ReactorSettings,
  SwitchReply,
  ToReactor,
} from "./messages.js";
import { TrackedDevice } from "./tracked-device.js";
import { REACTOR_TURN_UNITS } from "./turns.js";

/** As pino writes it. */
const FATAL = 60;

assert(parentPort !== null, "this module is for a worker thread");
const port = parentPort;
const { wakeFd, options } = workerData as ReactorWorkerData;
const settings = options as ReactorSettings;
const devices = new Map<number, TrackedDevice>();

function say(message: FromReactor): void {
  port.postMessage(message);
}

function reportError(error: unknown): void {
  say({ notice: "error", message: errorText(error) });
}

function deviceOf(tracker: number): TrackedDevice {
  const device = devices.get(tracker);
  if (device === undefined) throw new Error(`reactor ${settings.index} has no tracker ${tracker}`);
  return device;
}

/** In slices: it may be all of a device. */
function markDirty({ tracker, ranges }: MarkDirtyRequest, done: () => void): void {
  const { engine, slices } = deviceOf(tracker);
  const { cbtBlockBytes } = engine;
  const bytesMax = REACTOR_TURN_UNITS * cbtBlockBytes;
  let range = 0;
  let doneBytes = 0;
  slices.run(() => {
    for (let units = 0; range < ranges.length && units < REACTOR_TURN_UNITS; units++) {
      const lengthBytes = Math.min(ranges[range + 1] - doneBytes, bytesMax);
      engine.markDirty(ranges[range] + doneBytes, lengthBytes);
      units += lengthBytes / cbtBlockBytes;
      doneBytes += lengthBytes;
      if (doneBytes < ranges[range + 1]) continue;
      range += 2;
      doneBytes = 0;
    }
    if (range < ranges.length) return true;
    done();
    return false;
  });
}

function attach(request: AttachRequest): void {
  const { tracker } = request;
  const device = reactor.attempt(() => new TrackedDevice(reactor, settings, request, ticker, say));
  devices.set(tracker, device);
  try {
    device.start();
  } catch (error) {
    // Where the kernel has commands of its queue, it ends with its device.
    device.awaitFrontEnd(() => removeDevice(tracker));
    throw error;
  }
}

function removeDevice(tracker: number): void {
  deviceOf(tracker).close();
  devices.delete(tracker);
}

/** What is asked of a device may come when it has gone: null then. */
function tell({ type, tracker }: DeviceRequest, done: (value: unknown) => void): void {
  const device = devices.get(tracker);
  if (device === undefined) done(null);
  else if (type === "counters") done(device.counters());
  else device.lostRanges.read(done);
}

/**
 * Carries a request out; `done` may be called later.
 * @param take whether the request's descriptors may be looked at
 */
function carryOut(
  request: ReactorRequest,
  done: (value?: unknown) => void,
  take: () => boolean,
): void {
  switch (request.type) {
    case "attach":
      if (!take()) return;
      attach(request);
      done();
      return;
    case "prepareArea":
      if (!take()) return;
      deviceOf(request.tracker).prepareArea(request.area);
      done();
      return;
    case "wakeArea":
      done(deviceOf(request.tracker).wakeArea(request.area));
      return;
    case "hold":
      deviceOf(request.tracker).hold(request.deadlineMs, done);
      return;
    case "switch":
      done({ stallUs: deviceOf(request.tracker).switchAndRelease() } satisfies SwitchReply);
      return;
    case "release":
      done(deviceOf(request.tracker).release());
      return;
    case "openImage":
      if (!take()) return;
      deviceOf(request.tracker).openImage(request.queue);
      done();
      return;
    case "dropArea":
      deviceOf(request.tracker).dropArea(done);
      return;
    case "closeArea":
      done({ lateArea: deviceOf(request.tracker).closeArea() } satisfies CloseAreaReply);
      return;
    case "awaitImageEnd":
      deviceOf(request.tracker).awaitImageEnd(done);
      return;
    case "awaitFrontEnd":
      deviceOf(request.tracker).awaitFrontEnd(() => {
        removeDevice(request.tracker);
        done();
      });
      return;
    case "loseSlots": {
      const { engine, slices } = deviceOf(request.tracker);
      loseSlots(engine, slices, request, done);
      return;
    }
    case "markDirty":
      markDirty(request, done);
      return;
    case "counters":
    case "lostRanges":
      tell(request, done);
      return;
    case "mirrorJournal":
    case "adoptJournal":
    case "dropJournal":
    case "commitJournal":
    case "dropAreaJournal":
      carryOutJournal(deviceOf(request.tracker), request, done, take);
      return;
    case "growAreaJournal":
    case "compactAreaJournal":
    case "adoptAreaJournal":
    case "abandonAreaJournal":
      carryOutAreaJournal(deviceOf(request.tracker), request, done);
      return;
    case "stop":
      assert(devices.size === 0, "a reactor with devices is told to stop");
      reactor.stop();
  }
}

function onMessage(message: unknown): void {
  const received = message as ToReactor;
  if ("type" in received) {
    devices.get(received.tracker)?.grant(received);
    return;
  }
  const { id, request, claim } = received;
  const take = (): boolean => claim === undefined || takeClaim(claim);
  try {
    carryOut(request, (value) => say({ re: id, value }), take);
  } catch (error) {
    say({ re: id, error: carriedError(error) });
    reportError(error);
  }
}

/** To the log itself: the main thread may not come to it before the process has ended. */
function sayLast(error: unknown): void {
  const msg = `reactor ${settings.index} has ended: ${errorText(error)}`;
  writeSync(2, `${JSON.stringify({ level: FATAL, time: Date.now(), msg })}\n`);
}

/** Its requests are nobody's any more when it ends, and their writers wait for the next process. */
const { lostStatus } = settings;
const untie = lostStatus === undefined ? () => undefined : endProcessWithThread(lostStatus);
const flusherProblem = becomeIoFlusher();
if (flusherProblem !== undefined) say({ notice: "error", message: flusherProblem });
const heartbeat = new Int32Array(settings.heartbeat);
const { ringEntries: entries } = settings;
const reactor = new Reactor({ wakeFd, port, onMessage, onError: reportError, heartbeat, entries });
const ticker = new IoTicker(reactor, settings.ioTimeoutMs);
say({ notice: "ready" });
try {
  reactor.run();
} catch (error) {
  if (lostStatus !== undefined) sayLast(error);
  throw error;
}
untie();
port.close();
