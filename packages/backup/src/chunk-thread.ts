/**
 * Threads for chunks, which outlive a pool: starting one takes 35 ms of a processor, and as long again until its code is
 * compiled, and a program may back up many devices.
 */
import { Worker } from "node:worker_threads";
import { BackupError } from "./errors.js";
import type { ChunkAnswer, ChunkRequest } from "./worker.js";

/** Of a pool, and of those that wait for one. */
export const THREADS_MAX = 8;
/** A thread holds some megabytes. */
const IDLE_THREAD_MS = 5000;

interface Waiting {
  readonly done: (answer: ChunkAnswer) => void;
  readonly fail: (error: Error) => void;
}

/** Of one pool at a time. */
export class ChunkThread {
  readonly #worker: Worker;
  readonly #waiting = new Map<number, Waiting>();
  #nextId = 0;
  #end: Error | undefined;

  constructor() {
    this.#worker = new Worker(new URL("./worker.js", import.meta.url));
    this.#worker.on("message", ({ id, answer }: { id: number; answer: ChunkAnswer }) => {
      this.#waiting.get(id)?.done(answer);
      this.#waiting.delete(id);
    });
    this.#worker.on("error", (error) => this.#fail(error));
    this.#worker.on("exit", () => this.#fail(new Error("it has ended")));
  }

  get load(): number {
    return this.#waiting.size;
  }

  /** It works, and has nothing to do. */
  get isIdle(): boolean {
    return this.#end === undefined && this.load === 0;
  }

  /** The process does not end before it. */
  hold(): void {
    this.#worker.ref();
  }

  release(): void {
    this.#worker.unref();
  }

  ask(request: ChunkRequest, transfer: readonly ArrayBuffer[]): Promise<ChunkAnswer> {
    return new Promise((done, fail) => {
      if (this.#end !== undefined) return fail(this.#end);
      const id = this.#nextId++;
      this.#waiting.set(id, { done, fail });
      this.#worker.postMessage({ id, request }, transfer);
    });
  }

  async close(): Promise<void> {
    await this.#worker.terminate();
  }

  #fail(cause: Error): void {
    this.#end ??= new BackupError("INTERNAL", `a thread for chunks failed: ${cause.message}`, {
      cause,
    });
    for (const { fail } of this.#waiting.values()) fail(this.#end);
    this.#waiting.clear();
  }
}

const idle = new Map<ChunkThread, NodeJS.Timeout>();

/** An idle thread, or a new one. */
export function takeThread(): ChunkThread {
  for (const [thread, timer] of idle) {
    clearTimeout(timer);
    idle.delete(thread);
    if (!thread.isIdle) continue; // It has failed meanwhile.
    thread.hold();
    return thread;
  }
  return new ChunkThread();
}

/** The next pool may have it, unless it is at work for one that has failed. */
export async function endThread(thread: ChunkThread): Promise<void> {
  if (!thread.isIdle || idle.size >= THREADS_MAX) return await thread.close();
  thread.release();
  const end = (): void => {
    idle.delete(thread);
    void thread.close();
  };
  idle.set(thread, setTimeout(end, IDLE_THREAD_MS).unref());
}
