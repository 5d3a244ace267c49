/** Progress of a copy. */
export interface Progress {
  readonly done_bytes: number;
  readonly total_bytes: number;
  /** Average since the start. */
  readonly rate_bytes_per_s: number;
  /** Null if it is still unknown. */
  readonly left_ms: number | null;
}

export type OnProgress = (progress: Progress) => void;

/** Counts bytes, and calls the listener after each step. */
export class Meter {
  readonly #totalBytes: number;
  readonly #onProgress: OnProgress;
  readonly #startMs: number = performance.now();
  #doneBytes = 0;

  constructor(totalBytes: number, onProgress: OnProgress = () => undefined) {
    this.#totalBytes = totalBytes;
    this.#onProgress = onProgress;
  }

  get doneBytes(): number {
    return this.#doneBytes;
  }

  add(bytes: number): void {
    this.#doneBytes += bytes;
    const ms = performance.now() - this.#startMs;
    const bytesPerMs = ms > 0 ? this.#doneBytes / ms : 0;
    const leftBytes = this.#totalBytes - this.#doneBytes;
    this.#onProgress({
      done_bytes: this.#doneBytes,
      total_bytes: this.#totalBytes,
      rate_bytes_per_s: Math.round(bytesPerMs * 1000),
      left_ms: bytesPerMs > 0 ? Math.round(leftBytes / bytesPerMs) : null,
    });
  }
}
