import { suite } from "uvu";
import * as assert from "uvu/assert";
import {
  type Continuity,
  type EarlierTracking,
  judgeContinuity,
  type PersistedIdentity,
} from "../dist/persistence/continuity.js";
import {
  BLOCK,
  BLOCK_CASES,
  type Change,
  type Expected,
  FILE,
  FILE_CASES,
  XFS,
} from "./continuity-cases.js";

const test = suite("continuity");

function judge(base: PersistedIdentity, change: Change, clean: boolean): Continuity {
  const before: EarlierTracking = {
    ...base,
    ...change.was,
    witness: { ...base.witness, ...change.wasWitness },
    clean,
  };
  const now: PersistedIdentity = {
    ...base,
    ...change.is,
    witness: { ...base.witness, ...change.isWitness },
  };
  return judgeContinuity(before, now);
}

function outcome(judged: Continuity): Expected {
  return judged.verdict === "new_generation" ? judged.reason : judged.verdict;
}

for (const [base, cases] of [
  [BLOCK, BLOCK_CASES],
  [FILE, FILE_CASES],
] as const) {
  for (const [what, change, clean, unclean, why] of cases) {
    for (const [isClean, expected] of [
      [true, clean],
      [false, unclean],
    ] as const) {
      test(`${what}, ${isClean ? "clean" : "unclean"}: ${expected}`, () => {
        const judged = judge(base, change, isClean);
        assert.is(outcome(judged), expected, JSON.stringify(judged));
        if (judged.verdict === "continue") return;
        assert.match(
          judged.why,
          /^[a-z0-9][^.\n]*(\.\d[^.\n]*)*$/,
          "one clause, for the end of a sentence",
        );
        if (why !== undefined && expected !== "unclean") assert.match(judged.why, why);
      });
    }
  }
}

/** Every combination of what counters, digest, boot and diskseq can say; see continuity.ts. */
test("a map is kept only where nothing speaks against it", () => {
  let kept = 0;
  const counts = [null, 0, 5000];
  for (const clean of [true, false])
    for (const bootId of ["b-1", "b-2"])
      for (const diskseq of [null, "7", "8"])
        for (const writeSectors of counts)
          for (const discardSectors of counts)
            for (const digest of ["d-1", "d-2"]) {
              const isWitness = { bootId, diskseq, writeSectors, discardSectors };
              const change = { is: { content: { ...XFS, digest } }, isWitness };
              const judged = judge(BLOCK, { ...change, wasWitness: { discardSectors: 0 } }, clean);
              if (judged.verdict !== "continue") continue;
              kept += 1;
              const same = bootId === "b-1" && diskseq === "7";
              const untouched = !writeSectors && !discardSectors;
              const unmoved = same && writeSectors === 5000 && discardSectors === 0;
              const told = JSON.stringify({ clean, ...isWitness, digest });
              assert.ok(untouched || unmoved, told);
              if (clean) assert.is(digest, "d-1", told);
              else assert.ok(!same && writeSectors === 0 && discardSectors === 0, told);
            }
  assert.ok(kept > 10, `only ${kept} kept`);
});

test.run();
