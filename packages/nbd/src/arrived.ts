/**
 * Which bytes of a read have arrived. Its reply may be in pieces, in any order: a server that sends one piece twice
 * and omits another has sent the requested number of bytes, but not the requested ones.
 */

/** Pieces after the first gap: servers send in order, or nearly so. */
const RUNS_MAX = 4096;

interface Run {
  readonly startBytes: number;
  readonly endBytes: number;
}

export class Arrived {
  #wholeBytes = 0;
  /** Pieces after the first gap, in order, none adjacent to the next. */
  readonly #runs: Run[] = [];

  /** Bytes that have arrived from the beginning, without a gap. */
  get wholeBytes(): number {
    return this.#wholeBytes;
  }

  /** Returns false if some of it has arrived before, or the reply has more pieces than a server makes. */
  add(startBytes: number, endBytes: number): boolean {
    // The first that does not end before the piece begins.
    let index = this.#runs.length;
    while (index > 0 && this.#runs[index - 1]!.endBytes >= startBytes) index--;
    let run: Run = { startBytes, endBytes };
    let merged = 0;
    const before = this.#runs[index];
    if (before !== undefined && before.startBytes < startBytes) {
      if (before.endBytes > startBytes) return false;
      run = { startBytes: before.startBytes, endBytes };
      merged++;
    }
    const after = this.#runs[index + merged];
    if (after !== undefined && after.startBytes <= endBytes) {
      if (after.startBytes < endBytes) return false;
      run = { startBytes: run.startBytes, endBytes: after.endBytes };
      merged++;
    }
    if (startBytes < this.#wholeBytes) return false;
    if (run.startBytes === this.#wholeBytes) {
      this.#wholeBytes = run.endBytes;
      this.#runs.splice(index, merged);
      return true;
    }
    this.#runs.splice(index, merged, run);
    return this.#runs.length <= RUNS_MAX;
  }
}
