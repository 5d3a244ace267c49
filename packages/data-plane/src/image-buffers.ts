/** The data buffers of a queue of an image, some of which late runs still use. */
import type { RequestQueue } from "@blksnap/ublk";
import { IoBuffers } from "./io-buffers.js";

export class ImageBuffers {
  readonly queue: RequestQueue;
  readonly #buffers: IoBuffers;
  readonly #tagOf: Int32Array;

  /** @param onIdle after close(): nothing uses a buffer any more */
  constructor(queue: RequestQueue, runsMax: number, onIdle: () => void) {
    this.queue = queue;
    this.#tagOf = new Int32Array(runsMax);
    queue.keepBuffers();
    this.#buffers = new IoBuffers({
      places: queue.depth,
      ids: runsMax,
      lengthBytes: queue.maxIoBytes,
      address: (tag) => (queue.bufferLow[tag] >>> 0) + queue.bufferHigh[tag] * 4294967296,
      onIdle: () => {
        queue.releaseBuffers();
        onIdle();
      },
    });
  }

  begin(run: number, tag: number): void {
    this.#tagOf[run] = tag;
    this.#buffers.begin(run, tag);
  }

  end(run: number): void {
    this.#buffers.end(run);
  }

  /** The run is late: its tag gets another buffer. */
  setLate(run: number): void {
    const tag = this.#tagOf[run];
    const memory = this.#buffers.replace(tag);
    if (memory !== undefined) this.queue.replaceBuffer(tag, memory);
  }

  close(): void {
    this.#buffers.close();
  }
}
