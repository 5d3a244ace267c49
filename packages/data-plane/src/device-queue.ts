/** A served queue and its end: the queue of a ublk device, or of an NBD export that clients write to. */

import { ReactorServer, type ServerSettings, serverMemory } from "@blksnap/nbd";
import {
  type DeviceParams,
  Queue,
  type QueueStart,
  type RequestQueue,
  type Target,
} from "@blksnap/ublk";
import type { PinnedUnits, Reactor } from "@blksnap/uring";
import { CONNECTIONS_MAX, EXPORT_NAME, type NbdConnection } from "./nbd-door.js";
import type { QueueMemory } from "./queue-memory.js";

/** A queue served without a device: its requests come from NBD connections. */
export interface ExportStart {
  readonly exported: DeviceParams;
  readonly queueDepth: number;
  readonly maxIoBytes: number;
}

export type DeviceQueueStart = QueueStart | ExportStart;

export interface ServedQueue {
  /** The queue that the target serves. */
  readonly queue: RequestQueue;
  /** Requests may arrive, and its end will call `onEnd`. */
  readonly isServing: boolean;
  /** Takes over a connection, unless it returns false. Undefined if users have a device. */
  readonly adopt: ((connection: NbdConnection) => boolean) | undefined;
  /** How many connections there are. */
  readonly connections: number;
  start(target: Target): void;
  /** Gives up a queue that was not started. */
  discard(): void;
  /** Ends the queue, unless its device does that. */
  end(): void;
}

function exportSettings({ queueDepth, maxIoBytes }: ExportStart): ServerSettings {
  return { connectionsMax: Math.min(CONNECTIONS_MAX, queueDepth), queueDepth, maxIoBytes };
}

/** The buffers of a queue, and what else it gives to the kernel; undefined if that is nothing. */
export function queueUnits(start: DeviceQueueStart): PinnedUnits | undefined {
  if ("exported" in start) return serverMemory(exportSettings(start));
  const { queueDepth: units, maxIoBytes: unitBytes, zeroCopy = false } = start;
  return zeroCopy ? undefined : { units, unitBytes, lengthBytes: units * unitBytes };
}

export function makeQueue(
  reactor: Reactor,
  start: DeviceQueueStart,
  onEnd: () => void,
  onError: (error: unknown) => void,
  memory: QueueMemory | undefined,
): ServedQueue {
  if (memory !== undefined) reactor.noteTaken(() => memory.giveBack());
  if ("exported" in start) return new ExportQueue(reactor, start, onEnd, onError, memory);
  const { charFd, queueDepth: depth, maxIoBytes, zeroCopy = false } = start;
  const options = { charFd, queueId: 0, depth, maxIoBytes, zeroCopy, onEnd, onError };
  const buffers = memory?.handOver();
  return new UblkQueue(new Queue({ reactor, ...options, memory: buffers }));
}

class UblkQueue implements ServedQueue {
  readonly adopt = undefined;
  readonly connections = 0;
  readonly queue: Queue;

  constructor(queue: Queue) {
    this.queue = queue;
  }

  get isServing(): boolean {
    return this.queue.isServing;
  }

  start(target: Target): void {
    this.queue.start(target);
  }

  discard(): void {
    this.queue.discard();
  }

  /** The kernel ends the queue with its device. */
  end(): void {}
}

class ExportQueue implements ServedQueue {
  isServing = false;
  readonly #server: ReactorServer;
  readonly #params: DeviceParams;
  readonly #onEnd: () => void;
  #isEnding = false;

  constructor(
    reactor: Reactor,
    start: ExportStart,
    onEnd: () => void,
    onError: (error: unknown) => void,
    memory: QueueMemory | undefined,
  ) {
    this.#params = start.exported;
    this.#onEnd = onEnd;
    const settings = exportSettings(start);
    const taken = memory?.handOver();
    try {
      const own = taken === undefined ? {} : { memory: taken };
      this.#server = new ReactorServer({ reactor, settings, onError, ...own });
    } catch (error) {
      memory?.giveBack();
      throw error;
    }
  }

  get queue(): RequestQueue {
    return this.#server.queue;
  }

  get connections(): number {
    return this.#server.connections;
  }

  readonly adopt = (connection: NbdConnection): boolean =>
    this.#server.adopt(connection.fd, { ...connection, exportName: EXPORT_NAME });

  start(target: Target): void {
    const { readOnly } = this.#params;
    // A read-only image accepts discards only if its reader may release what it has read.
    this.#server.add({ name: EXPORT_NAME, readOnly, releases: true }, this.#params, target);
    this.isServing = true;
  }

  discard(): void {
    this.#server.stop(() => undefined);
  }

  end(): void {
    if (this.#isEnding) return;
    this.#isEnding = true;
    this.#server.stop(this.#onEnd);
  }
}

/** Starts the queue. If it throws, the queue is given up, or ends with its device: see `end`. */
export function startQueue(queue: ServedQueue, target: Target, end: QueueEnd): void {
  try {
    queue.start(target);
  } finally {
    if (queue.isServing) end.begin();
    else queue.discard();
  }
}

/** The caller that waits for the end of a queue: the main thread, or none if the end is unexpected. */
export class QueueEnd {
  readonly #onUnexpected: () => void;
  #isEnded = true;
  #onEnd: (() => void) | undefined;

  constructor(onUnexpected: () => void) {
    this.#onUnexpected = onUnexpected;
  }

  /** True before a queue begins, and after it has ended. */
  get isEnded(): boolean {
    return this.#isEnded;
  }

  /** A queue begins. */
  begin(): void {
    this.#isEnded = false;
  }

  /** The last command has completed. */
  end(): void {
    this.#isEnded = true;
    const onEnd = this.#onEnd;
    this.#onEnd = undefined;
    if (onEnd === undefined) this.#onUnexpected();
    else onEnd();
  }

  /** Calls back once: at the end, or at once if it has ended. */
  await(onEnd: () => void): void {
    if (this.#isEnded) onEnd();
    else this.#onEnd = onEnd;
  }
}
