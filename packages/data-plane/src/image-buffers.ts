/** The data buffers of a queue of an image, some of which late runs still use. */
import type { RequestQueue } from "@blksnap/ublk";
import { IoBuffers } from "./io-buffers.js";

export class ImageBuffers {
  readonly queue: RequestQueue;
  readonly #buffers: IoBuffers;
  readonly #tagOf: Int32Array;
  /** By tag: late runs that use its buffer, as there is no memory for another one. And which runs these are. */
  readonly #stuck: Int32Array;
  readonly #isStuck: Uint8Array;

  /** @param onIdle after close(): nothing uses a buffer any more */
  constructor(queue: RequestQueue, runsMax: number, onIdle: () => void) {
    this.queue = queue;
    this.#tagOf = new Int32Array(runsMax);
    this.#stuck = new Int32Array(queue.depth);
    this.#isStuck = new Uint8Array(runsMax);
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

  /** False, and it does not begin, while something late uses the buffer of the tag: it would meet the run's bytes. */
  begin(run: number, tag: number): boolean {
    if (this.#stuck[tag] > 0) return false;
    this.#tagOf[run] = tag;
    this.#buffers.begin(run, tag);
    return true;
  }

  end(run: number): void {
    this.#buffers.end(run);
    if (this.#isStuck[run] === 0) return;
    this.#isStuck[run] = 0;
    this.#stuck[this.#tagOf[run]]--;
  }

  /** The run is late: its tag gets another buffer, or none is begun for it before this one has been answered. */
  setLate(run: number): void {
    const tag = this.#tagOf[run];
    const memory = this.#buffers.replace(tag);
    if (memory !== undefined) this.queue.replaceBuffer(tag, memory);
    else if (this.#buffers.isAt(run, tag)) {
      this.#isStuck[run] = 1;
      this.#stuck[tag]++;
    }
  }

  close(): void {
    this.#buffers.close();
  }
}
