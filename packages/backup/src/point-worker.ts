/** The thread that serves a point in time over NBD. */
import { parentPort, workerData } from "node:worker_threads";
import { AllocationFlag, BASE_ALLOCATION, FixedContext, ReactorServer } from "@blksnap/nbd";
import { assert, Reactor, type ReactorWorkerData } from "@blksnap/uring";
import { CHUNK_BYTES } from "./chunks.js";
import { PointTarget } from "./point-target.js";

export interface PointWorkerOptions {
  /** Shared: the listening socket, then space for one per connection. */
  readonly descriptors: Int32Array;
  readonly name: string;
  readonly description: string;
  readonly capacityBytes: number;
  /** For each chunk, 1 if it is zeros. */
  readonly isZeros: Uint8Array;
  /** Shared: PLACES chunks. */
  readonly cache: Uint8Array;
}

export type ToPointWorker =
  | { readonly type: "loaded"; readonly place: number; readonly isGood: boolean }
  | { readonly type: "stop" };

export type FromPointWorker =
  | { readonly type: "serving" }
  | { readonly type: "want"; readonly place: number; readonly chunk: number }
  | { readonly type: "error"; readonly message: string };

/** Chunks of zeros, as runs. */
function allocationOf({ isZeros, capacityBytes }: PointWorkerOptions): FixedContext {
  const ends: number[] = [];
  const flags: number[] = [];
  for (const [chunk, zeros] of isZeros.entries()) {
    const own = zeros === 1 ? AllocationFlag.HOLE | AllocationFlag.ZERO : 0;
    const end = Math.min((chunk + 1) * CHUNK_BYTES, capacityBytes);
    if (flags.at(-1) === own) ends[ends.length - 1] = end;
    else {
      ends.push(end);
      flags.push(own);
    }
  }
  return new FixedContext(BASE_ALLOCATION, Float64Array.from(ends), Uint32Array.from(flags));
}

assert(parentPort !== null, "this module is for a worker thread");
const { wakeFd, options: given } = workerData as ReactorWorkerData;
const options = given as PointWorkerOptions;
const port = parentPort;

function say(message: FromPointWorker): void {
  port.postMessage(message);
}

const onError = (error: unknown): void => {
  say({ type: "error", message: error instanceof Error ? error.message : String(error) });
};
function onMessage(message: unknown): void {
  const received = message as ToPointWorker;
  if (received.type === "loaded") target.loaded(received.place, received.isGood);
  else {
    target.giveUp();
    server.stop(() => reactor.stop());
  }
}
const reactor = new Reactor({ wakeFd, port, onMessage, onError });
const { descriptors, name, description, capacityBytes } = options;
const server = new ReactorServer({ reactor, listenFd: descriptors[0], descriptors, onError });
const target = new PointTarget(server.queue, options.cache, options.isZeros, (place, chunk) =>
  say({ type: "want", place, chunk }),
);
const params = {
  ...{ capacityBytes, logicalBlockBytes: 512, physicalBlockBytes: 4096, ioMinBytes: 4096 },
  ...{ ioOptBytes: CHUNK_BYTES, readOnly: true, rotational: false, volatileCache: false },
  ...{ fua: false, discardMaxBytes: 0, discardGranularityBytes: 0, writeZeroesMaxBytes: 0 },
};
server.add({ name, description, contexts: [allocationOf(options)] }, params, target);
say({ type: "serving" });
reactor.run();
port.close();
