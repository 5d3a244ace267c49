/** The data buffers of an image's queue, some of which late runs may still use. */
import type { RequestQueue } from "@blksnap/ublk";
import { IoBuffers } from "./io-buffers.js";

export class ImageBuffers {
  readonly queue: RequestQueue;
  readonly #buffers: IoBuffers;
  readonly #tagOf: Int32Array;
  /** By tag: late runs that use its buffer while there is no memory for another one; and which runs these are. */
  readonly #stuck: Int32Array;
  readonly #isStuck: Uint8Array;

  /** @param onIdle called after close(), when nothing uses a buffer any more */
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

  /** False, without beginning, while late I/O uses the tag's buffer: it could overwrite the run's data. */
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

  /** The run is late: its tag gets another buffer, or no run of it begins until this one has been answered. */
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
