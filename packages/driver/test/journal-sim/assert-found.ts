/** Whether the judge of a simulation finds deliberate mistakes. */
import * as assert from "uvu/assert";

/** @param problemOf runs a seed with the mistake, and returns what the judge found */
export function assertFound(seeds: number, problemOf: (seed: number) => string | undefined): void {
  for (let seed = 1; seed <= seeds; seed++) {
    let problem: string | undefined;
    try {
      problem = problemOf(seed);
    } catch {
      continue; // A plant may break the code's own assertions: that is not the judge's find.
    }
    if (problem !== undefined) return;
  }
  assert.unreachable(`not found in ${seeds} seeds`);
}
