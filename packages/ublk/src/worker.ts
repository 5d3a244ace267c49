/** The reactor thread of one UblkDevice: serves its queue until the device stops. */
import { parentPort, workerData } from "node:worker_threads";
import { assert, canLookOut, Reactor, type ReactorWorkerData } from "@blksnap/uring";
import { Queue } from "./queue.js";
import type { TargetModule, TargetSpec } from "./target.js";

/** The worker's initial data. */
export interface DeviceWorkerOptions {
  readonly charFd: number;
  readonly queueDepth: number;
  readonly maxIoBytes: number;
  readonly zeroCopy: boolean;
  readonly target: { readonly module: string; readonly options: TargetSpec["options"] };
}

/** Messages of the worker. */
export type DeviceWorkerMessage =
  | { readonly type: "serving" }
  | { readonly type: "ended" }
  | { readonly type: "error"; readonly message: string };

const { wakeFd, options } = workerData as ReactorWorkerData;
const device = options as DeviceWorkerOptions;
assert(parentPort !== null, "this module is for a worker thread");
const port = parentPort;

function say(message: DeviceWorkerMessage): void {
  port.postMessage(message);
}

const { target } = (await import(device.target.module)) as { target: TargetModule };
const onError = (error: unknown): void => {
  say({ type: "error", message: error instanceof Error ? (error.stack ?? "") : String(error) });
};
const isLively = canLookOut();
const reactor = new Reactor({ wakeFd, port, onMessage: () => reactor.stop(), onError, isLively });
const queue = new Queue({
  reactor,
  charFd: device.charFd,
  queueId: 0,
  depth: device.queueDepth,
  maxIoBytes: device.maxIoBytes,
  zeroCopy: device.zeroCopy,
  onEnd: () => say({ type: "ended" }),
  onError,
});
queue.start(target.open(device.target.options, queue, reactor));
// START_DEV may come before or after the fetches: it waits for them.
say({ type: "serving" });
reactor.run();
port.close();
