/** The reactor thread of one NbdServer. */
import { parentPort, workerData } from "node:worker_threads";
import type { DeviceParams, TargetModule } from "@blksnap/ublk";
import { Reactor, type ReactorWorkerData } from "@blksnap/uring";
import { assert } from "./errors.js";
import { FixedContext } from "./exports.js";
import { ReactorServer } from "./reactor-server.js";
import type { ServerCounts } from "./reactor-server-options.js";
import type { ServerSettings } from "./settings.js";

/** Consecutive runs of blocks, in a form that crosses threads. */
export interface WorkerContext {
  readonly name: string;
  readonly ends: Float64Array;
  readonly flags: Uint32Array;
}

export interface WorkerExport {
  readonly name: string;
  readonly description: string;
  readonly readOnly: boolean;
  readonly params: DeviceParams;
  readonly module: string;
  readonly options: unknown;
  readonly contexts: readonly WorkerContext[];
}

export interface ServerWorkerOptions {
  /** Shared: the listening socket, then space for one per connection. */
  readonly descriptors: Int32Array;
  readonly settings: ServerSettings;
  readonly exports: readonly WorkerExport[];
}

export type ServerWorkerRequest = { readonly type: "stop" } | { readonly type: "count" };

/** Messages of the worker. */
export type ServerWorkerMessage =
  | { readonly type: "serving" }
  | { readonly type: "ended" }
  | { readonly type: "counts"; readonly counts: ServerCounts }
  | { readonly type: "error"; readonly message: string };

const { wakeFd, options } = workerData as ReactorWorkerData;
const { descriptors, settings, exports } = options as ServerWorkerOptions;
assert(parentPort !== null, "this module is for a worker thread");
const port = parentPort;

function say(message: ServerWorkerMessage): void {
  port.postMessage(message);
}

const modules = new Map<string, TargetModule>();
for (const { module } of exports) {
  modules.set(module, ((await import(module)) as { target: TargetModule }).target);
}
const onError = (error: unknown): void => {
  say({ type: "error", message: error instanceof Error ? (error.stack ?? "") : String(error) });
};
function onMessage(message: unknown): void {
  const request = message as ServerWorkerRequest;
  if (request.type === "count") {
    say({ type: "counts", counts: server.counts });
    return;
  }
  server.stop(() => {
    say({ type: "ended" });
    reactor.stop();
  });
}
const reactor = new Reactor({ wakeFd, port, onMessage, onError });
const [listenFd] = descriptors;
const server = new ReactorServer({ reactor, listenFd, settings, descriptors, onError });
function addExport(one: WorkerExport): void {
  const contexts = one.contexts.map(({ name, ends, flags }) => new FixedContext(name, ends, flags));
  const module = modules.get(one.module) as TargetModule;
  const target = module.open(one.options, server.queue, reactor);
  try {
    server.add({ ...one, contexts }, one.params, target);
  } catch (error) {
    target.close();
    throw error;
  }
}
let failure: unknown;
try {
  for (const one of exports) addExport(one);
  say({ type: "serving" });
} catch (error) {
  failure = error;
  // Targets that were opened before it are closed.
  server.stop(() => reactor.stop());
}
reactor.run();
port.close();
if (failure !== undefined) throw failure;
