import { suite } from "uvu";
import * as assert from "uvu/assert";
import type { BootMark } from "../../dist/continuity/boot-mark.js";
import {
  type Continuity,
  doubtOfIdentity,
  type EarlierTracking,
  judgeContinuity,
  type PersistedIdentity,
} from "../../dist/continuity/continuity.js";
import type { ContentDigest } from "../../dist/continuity/superblocks.js";
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

interface More {
  readonly closing?: boolean;
  readonly serving?: boolean;
  readonly trustReboots?: boolean;
}

function judge(
  base: PersistedIdentity,
  change: Change,
  clean: boolean,
  { closing = false, serving = true, trustReboots = false }: More = {},
): Continuity {
  const before: EarlierTracking = {
    ...base,
    ...change.was,
    witness: { ...base.witness, ...change.wasCounters },
    clean,
    closing,
    serving,
  };
  const now: PersistedIdentity = {
    ...base,
    ...change.is,
    witness: { ...base.witness, ...change.isCounters },
  };
  return judgeContinuity(before, now, { trustReboots });
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

const NEXT_BOOT = {
  bootId: "b-2",
  diskseq: "1",
  isFirstAppearance: true,
  writeSectors: 0,
  discardSectors: 0,
};
const OTHER_DISKSEQ = { diskseq: "8", writeSectors: 0, discardSectors: 0 };

/** A boot with these counters, after the boot with this id. */
function boot(previousBootId: string | null, tpmResets: number | null, isFirst = true): BootMark {
  return { previousBootId, counters: { tpmResets, firmwareBoots: null, isFirst } };
}

function content(unmounted: string | null, session: string | null = unmounted): ContentDigest {
  return { ...XFS, proof: { unmounted, session } };
}

interface Proof extends Change {
  readonly clean?: boolean;
  readonly closing?: boolean;
  readonly serving?: boolean;
  readonly trustReboots?: boolean;
}

const CLOSED: Proof = {
  closing: true,
  was: { boot: boot("b-0", 41) },
  is: { boot: boot("b-1", 42) },
  isCounters: NEXT_BOOT,
};
const CLOSED_FILE: Proof = {
  ...CLOSED,
  was: { ...FILE, boot: boot("b-0", 41) },
  is: { ...FILE, boot: boot("b-1", 42) },
  wasCounters: FILE.witness,
  isCounters: { ...FILE.witness, bootId: "b-2", sleptMs: 0 },
};
const CUT: Proof = { ...CLOSED, closing: false, clean: false, trustReboots: true };
const NAMELESS = { ...BLOCK.identity, wwid: null };

const PROOFS: [what: string, proof: Proof, expected: "continue" | RegExp][] = [
  ["closed with the system, the very next boot", CLOSED, "continue"],
  ["a file closed with the system, the very next boot", CLOSED_FILE, "continue"],
  ["a file, not closed with it", { ...CLOSED_FILE, closing: false }, /times from then may be lost/],
  [
    "a file, a daemon's boot between",
    { ...CLOSED_FILE, is: { ...FILE, boot: boot("b-9", 42) } },
    /another boot/,
  ],
  [
    "a file, a boot of the machine between",
    { ...CLOSED_FILE, is: { ...FILE, boot: boot("b-1", 43) } },
    /no other system/,
  ],
  [
    "the same, and the operator vouches for it",
    { ...CLOSED_FILE, is: { ...FILE, boot: boot("b-1", 43) }, trustReboots: true },
    "continue",
  ],
  [
    "it slept since it booted",
    { ...CLOSED, isCounters: { ...NEXT_BOOT, sleptMs: 5_000 } },
    /no other system/,
  ],
  ["not closed with it", { ...CLOSED, closing: false }, /while the system kept running/],
  [
    "a boot of the machine between",
    { ...CLOSED, is: { boot: boot("b-1", 43) } },
    /no other system/,
  ],
  ["no counter continues", { ...CLOSED, is: { boot: boot("b-1", 41) } }, /no other system/],
  ["reset to zero", { ...CLOSED, is: { boot: boot("b-1", 0) } }, /no other system/],
  ["no counter now", { ...CLOSED, is: { boot: boot("b-1", null) } }, /no other system/],
  ["no counter then", { ...CLOSED, was: { boot: boot("b-0", null) } }, /no other system/],
  ["no boot on record", { ...CLOSED, was: {} }, /no other system/],
  [
    "started by another kernel",
    { ...CLOSED, is: { boot: boot("b-1", 42, false) } },
    /other system/,
  ],
  ["a daemon's boot between", { ...CLOSED, is: { boot: boot("b-9", 42) } }, /another boot/],
  ["the chain is broken", { ...CLOSED, is: { boot: boot(null, 42) } }, /another boot/],
  [
    "counters disagree",
    {
      ...CLOSED,
      was: {
        boot: { ...boot("b-0", 41), counters: { ...boot("", 41).counters, firmwareBoots: 7 } },
      },
      is: {
        boot: { ...boot("b-1", 42), counters: { ...boot("", 42).counters, firmwareBoots: 9 } },
      },
    },
    /no other system/,
  ],
  [
    "it may have been away in this boot",
    { ...CLOSED, isCounters: { ...NEXT_BOOT, isFirstAppearance: false } },
    /removed/,
  ],
  [
    "writes of this boot are not counted",
    { ...CLOSED, isCounters: { ...NEXT_BOOT, writeSectors: null } },
    /does not count/,
  ],
  [
    "nothing names the device",
    {
      ...CLOSED,
      was: { ...CLOSED.was, identity: NAMELESS },
      is: { ...CLOSED.is, identity: NAMELESS },
    },
    /same device/,
  ],
  [
    "an unmounted file system, two boots later",
    { was: { content: content("t") }, is: { content: content("t") }, isCounters: NEXT_BOOT },
    "continue",
  ],
  [
    "the same where nothing counts writes",
    {
      was: { content: content("t") },
      is: { content: content("t") },
      wasCounters: { writeSectors: null },
    },
    "continue",
  ],
  [
    "the same plugged in again",
    { was: { content: content("t") }, is: { content: content("t") }, isCounters: OTHER_DISKSEQ },
    "continue",
  ],
  [
    "one that was mounted since",
    { was: { content: content("t") }, is: { content: content("u") }, isCounters: NEXT_BOOT },
    /while the system kept running/,
  ],
  [
    "one that is not unmounted",
    {
      was: { content: content(null, "s") },
      is: { content: content(null, "s") },
      isCounters: OTHER_DISKSEQ,
    },
    /was missing/,
  ],
  [
    "a power cut, the mount is the same",
    {
      clean: false,
      was: { content: content(null, "s") },
      is: { content: { ...content(null, "s"), digest: "d-2" } },
      isCounters: NEXT_BOOT,
    },
    "continue",
  ],
  [
    "a power cut, then mounted",
    {
      clean: false,
      was: { content: content(null, "s") },
      is: { content: content(null, "s2") },
      isCounters: NEXT_BOOT,
    },
    /nothing proves/,
  ],
  [
    "a power cut, a copy in a nameless disk's place",
    {
      clean: false,
      was: { content: content(null, "s"), identity: NAMELESS },
      is: { content: content(null, "s"), identity: NAMELESS },
      isCounters: NEXT_BOOT,
    },
    /nothing proves/,
  ],
  [
    "a power cut, proven for the next boot only",
    { ...CUT, trustReboots: false },
    /no writes since/,
  ],
  ["a power cut, trusted", CUT, "continue"],
  [
    "a power cut, trusted, no counter",
    { ...CUT, was: {}, is: { boot: boot("b-1", null) } },
    "continue",
  ],
  ["trusted, and its front was gone", { ...CUT, serving: false }, /ran without the front/],
  [
    "the same, the mount is the same",
    {
      ...CUT,
      serving: false,
      was: { ...CUT.was, content: content(null, "s") },
      is: { ...CUT.is, content: content(null, "s") },
    },
    "continue",
  ],
  ["a stop before the end, trusted", { ...CUT, clean: true }, /while the system kept running/],
  ["trusted, a daemon's boot between", { ...CUT, is: { boot: boot("b-9", 42) } }, /another boot/],
  [
    "trusted, not counted",
    { ...CUT, isCounters: { ...NEXT_BOOT, writeSectors: null } },
    /not count/,
  ],
  ["trusted, but the same boot", { ...CUT, isCounters: {} }, /while the system kept running/],
];

for (const [what, proof, expected] of PROOFS) {
  test(`${what}: ${expected}`, () => {
    const { clean = true, ...more } = proof;
    const judged = judge(BLOCK, proof, clean, more);
    if (expected === "continue") assert.equal(judged, { verdict: "continue" });
    else {
      assert.is(outcome(judged), "unclean", JSON.stringify(judged));
      assert.match((judged as { why: string }).why, expected);
    }
  });
}

test("evidence of a write outweighs any proof", () => {
  const written = { ...NEXT_BOOT, writeSectors: 1 };
  const mounted = { was: { content: content("t") }, is: { content: content("t") } };
  const proofs: Proof[] = [CLOSED, { ...CUT, clean: true, closing: true }, CUT, mounted];
  for (const proof of proofs) {
    const { clean = true, ...more } = proof;
    const judged = judge(BLOCK, { ...proof, isCounters: written }, clean, more);
    assert.is(outcome(judged), "foreign_write", JSON.stringify(proof));
  }
});

test("a missing PARTUUID of a partition in the same place indicates no other disk", () => {
  const nameless = { wwid: null, serial: null, dmUuid: null, contentUuid: null };
  const identity = {
    ...BLOCK.identity,
    ...nameless,
    partition: 1,
    partUuid: "6f0a3f5e-01",
    startBytes: 2 ** 20,
  };
  const doubt = (change: object): string | undefined =>
    doubtOfIdentity({ ...BLOCK, identity }, { ...BLOCK, identity: { ...identity, ...change } });
  assert.is(doubt({ partUuid: null }), undefined);
  assert.match(
    doubt({ partUuid: null, startBytes: 2 ** 21 }) ?? "none",
    /its PARTUUID was 6f0a3f5e-01/,
  );
});

test.run();
