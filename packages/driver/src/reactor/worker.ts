/** The thread of one reactor: takes requests of the main thread for the devices that it owns. */
import { parentPort, workerData } from "node:worker_threads";
import { slotIndex, slotStore } from "@blksnap/diff-storage";
import { assert, Reactor, type ReactorWorkerData } from "@blksnap/uring";
import { becomeIoFlusher } from "../system/process-setup.js";
import { carriedError } from "./carried-error.js";
import { errorText } from "./error-text.js";
import { carryOutJournal } from "./journal-requests.js";
import type {
  FromReactor,
  LoseSlotsRequest,
  MarkDirtyRequest,
  ReactorRequest,
  ReactorSettings,
  SwitchReply,
  ToReactor,
} from "./messages.js";
import { TrackedDevice } from "./tracked-device.js";

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

function markDirty(request: MarkDirtyRequest): void {
  const { engine } = deviceOf(request.tracker);
  for (let i = 0; i < request.ranges.length; i += 2) {
    engine.markDirty(request.ranges[i], request.ranges[i + 1]);
  }
}

function loseSlots({ tracker, store, firstSlotIndex }: LoseSlotsRequest): void {
  deviceOf(tracker).engine.loseSlots(
    (slot) => slotStore(slot) === store && slotIndex(slot) >= firstSlotIndex,
  );
}

/** Carries a request out; `done` may be called later. */
function carryOut(request: ReactorRequest, done: (value?: unknown) => void): void {
  switch (request.type) {
    case "attach":
      devices.set(request.tracker, new TrackedDevice(reactor, settings, request, say));
      done();
      return;
    case "prepareArea":
      deviceOf(request.tracker).prepareArea(request.area);
      done();
      return;
    case "wakeArea":
      deviceOf(request.tracker).wakeArea(request.area);
      done();
      return;
    case "hold":
      deviceOf(request.tracker).hold(request.deadlineMs, done);
      return;
    case "switch": {
      const reply: SwitchReply = { stallUs: deviceOf(request.tracker).switchAndRelease() };
      done(reply);
      return;
    }
    case "release":
      deviceOf(request.tracker).release();
      done();
      return;
    case "openImage":
      deviceOf(request.tracker).openImage(request.queue);
      done();
      return;
    case "dropArea":
      deviceOf(request.tracker).dropArea(done);
      return;
    case "closeArea":
      deviceOf(request.tracker).closeArea();
      done();
      return;
    case "awaitImageEnd":
      deviceOf(request.tracker).awaitImageEnd(done);
      return;
    case "awaitFrontEnd":
      deviceOf(request.tracker).awaitFrontEnd(() => {
        deviceOf(request.tracker).close();
        devices.delete(request.tracker);
        done();
      });
      return;
    case "loseSlots":
      loseSlots(request);
      done();
      return;
    case "markDirty":
      markDirty(request);
      done();
      return;
    case "counters":
      done(deviceOf(request.tracker).counters());
      return;
    case "lostRanges":
      done(deviceOf(request.tracker).lostRanges());
      return;
    case "mirrorJournal":
    case "adoptJournal":
    case "dropJournal":
    case "commitJournal":
    case "growAreaJournal":
    case "dropAreaJournal":
      carryOutJournal(deviceOf(request.tracker), request, done);
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
  const { id, request } = received;
  try {
    carryOut(request, (value) => say({ re: id, value }));
  } catch (error) {
    say({ re: id, error: carriedError(error) });
    reportError(error);
  }
}

const flusherProblem = becomeIoFlusher();
if (flusherProblem !== undefined) say({ notice: "error", message: flusherProblem });
const heartbeat = new Int32Array(settings.heartbeat);
const { ringEntries: entries } = settings;
const reactor = new Reactor({ wakeFd, port, onMessage, onError: reportError, heartbeat, entries });
say({ notice: "ready" });
reactor.run();
port.close();
