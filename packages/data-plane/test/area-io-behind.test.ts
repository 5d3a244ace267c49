/** Copies of a diff area that may go behind their writes, on real files. */
import { CopyFault, CopyKind, CopyMode } from "@blksnap/engine";
import { EIO, ENOMEM } from "@blksnap/errors";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { type Answer, blockOf, CHUNKS, copyAll, sourceOf, UNWRITTEN } from "./copy-all.js";

const EBADF = 9;

test("a copy that may go behind its write writes no slot if its read fails", () => {
  const { done, stored } = copyAll(CopyKind.OLD, "r+", CHUNKS - 1, { mode: CopyMode.APART });
  assert.equal(done[CHUNKS - 1], { copy: CHUNKS - 1, result: -EIO, fault: CopyFault.READ });
  assert.ok(blockOf(stored, CHUNKS - 1).every((byte) => byte === UNWRITTEN));
  assert.is(done[0]?.result, 0);
  const refused = copyAll(CopyKind.OLD, "r", CHUNKS, { mode: CopyMode.APART });
  for (const { result, fault } of refused.done) {
    assert.equal([result, fault], [-EBADF, CopyFault.WRITE]);
  }
});

test("a copy behind its write is written from its window, without a read", () => {
  const { done, stored } = copyAll(CopyKind.OLD, "r+", CHUNKS, {
    isOriginalGone: true,
    mode: CopyMode.BEHIND,
  });
  for (let copy = 0; copy < CHUNKS; copy++) {
    assert.equal(done[copy], { copy, result: 0, fault: CopyFault.NONE });
    assert.ok(blockOf(stored, copy).every((byte) => byte === 0));
  }
});

for (const part of ["read", "write"]) {
  test(`a copy that may go behind its write is repeated if the kernel could not carry out its ${part}`, () => {
    const left = new Array<number>(CHUNKS).fill(3);
    const answer: Answer = (copy, isWrite, result) =>
      isWrite === (part === "write") && left[copy]!-- > 0 ? -ENOMEM : result;
    const apart = copyAll(CopyKind.OLD, "r+", CHUNKS, { answer, mode: CopyMode.APART });
    for (let copy = 0; copy < CHUNKS; copy++) {
      assert.equal(apart.done[copy], { copy, result: 0, fault: CopyFault.NONE });
      assert.is(blockOf(apart.stored, copy).compare(sourceOf(apart.original, copy)), 0);
    }
    assert.equal(apart.read, [0, 1, 2, 3], "its write goes down once");
  });
}

test.run();
