/**
 * Which bytes of a read have come. Its reply may be in pieces, in any order: a server that sends one piece twice and leaves
 * another out has sent as many bytes as were asked for, and not those.
 */

/** Beyond the first gap: servers send in order, or nearly so. */
const RUNS_MAX = 4096;

interface Run {
  readonly startBytes: number;
  readonly endBytes: number;
}

export class Arrived {
  #wholeBytes = 0;
  /** Beyond those, in order: none touches the next. */
  readonly #runs: Run[] = [];

  /** So many are there from the beginning on, without a gap. */
  get wholeBytes(): number {
    return this.#wholeBytes;
  }

  /** Answers false where some of it has come before, or the reply is in more pieces than a server makes. */
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
