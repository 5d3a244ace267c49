/** A served queue, and its end. */

import type { QueueStart } from "@blksnap/ublk";
import { Queue, type Target } from "@blksnap/ublk";
import type { Reactor } from "@blksnap/uring";
import type { QueueMemory } from "./queue-memory.js";

export function makeQueue(
  reactor: Reactor,
  { charFd, queueDepth: depth, maxIoBytes }: QueueStart,
  onEnd: () => void,
  onError: (error: unknown) => void,
  memory: QueueMemory | undefined,
): Queue {
  const buffers = memory?.take();
  return new Queue({
    reactor,
    charFd,
    queueId: 0,
    depth,
    maxIoBytes,
    memory: buffers,
    onEnd,
    onError,
  });
}

/** Where it throws the queue is given up, or ends with its device: `end` tells. */
export function startQueue(queue: Queue, target: Target, end: QueueEnd): void {
  try {
    queue.start(target);
  } finally {
    if (queue.isServing) end.begin();
    else queue.discard();
  }
}

/** What waits for the end of a queue: the main thread, or nothing where it was not expected. */
export class QueueEnd {
  readonly #onUnexpected: () => void;
  #isEnded = true;
  #onEnd: (() => void) | undefined;

  constructor(onUnexpected: () => void) {
    this.#onUnexpected = onUnexpected;
  }

  /** There is no queue, or none any more. */
  get isEnded(): boolean {
    return this.#isEnded;
  }

  /** There is a queue from now on. */
  begin(): void {
    this.#isEnded = false;
  }

  /** The last command has come back. */
  end(): void {
    this.#isEnded = true;
    const told = this.#onEnd;
    this.#onEnd = undefined;
    if (told === undefined) this.#onUnexpected();
    else told();
  }

  /** Calls back once, at the end, or now. */
  await(onEnd: () => void): void {
    if (this.#isEnded) onEnd();
    else this.#onEnd = onEnd;
  }
}
