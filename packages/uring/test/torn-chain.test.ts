/**
 * The kernel takes a part of a batch when it has no memory for a request, and the part may end inside a
 * chain. Here it is offered a part, which is the same to it.
 */
import { closeSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import {
  LINK_TORN,
  MappedMemory,
  prepareFsync,
  prepareNop,
  prepareRead,
  prepareWrite,
  Ring,
  SetupFlag,
  SqeFlag,
} from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { native } from "../dist/native.js";
import { at, popCompletions, resultsByUser, withFolder } from "./support.js";

const ECANCELED = 125;
const [READ, WRITE, SYNC, OTHER] = [1, 2, 3, 4];

/** Has the next call of the kernel take so many entries at most. */
function takeOnly(count: number): void {
  const { enter } = native;
  native.enter = (fd, toSubmit, minComplete, flags) => {
    native.enter = enter;
    return enter(fd, Math.min(toSubmit, count), toSubmit > count ? 0 : minComplete, flags);
  };
}

/** A read, a write and a sync in one chain, and something behind it that is not part of it. */
function tornAfter(
  count: number,
  flags: number,
): { results: Map<number, number>; written: string } {
  const outcome = { results: new Map<number, number>(), written: "" };
  withFolder((folder) => {
    writeFileSync(join(folder, "from"), "f".repeat(4096));
    const from = openSync(join(folder, "from"), "r");
    const to = openSync(join(folder, "to"), "w");
    const ring = new Ring({ entries: 8, flags });
    const memory = MappedMemory.anonymous(4096);
    const address = at(memory);
    ring.reserve(3);
    prepareRead(ring, from, ...address, 4096, 0, 0, READ, 0, SqeFlag.IO_LINK);
    prepareWrite(ring, to, ...address, 4096, 0, 0, 0, WRITE, 0, SqeFlag.IO_LINK);
    prepareFsync(ring, to, 0, SYNC, 0, 0);
    prepareNop(ring, OTHER, 0, 0);
    takeOnly(count);
    outcome.results = resultsByUser(popCompletions(ring, 4));
    outcome.written = readFileSync(join(folder, "to"), "utf8");
    assert.is(ring.pending, 0);
    ring.close();
    memory.unmap();
    closeSync(from);
    closeSync(to);
  });
  return outcome;
}

const LAYOUTS = {
  "a plain ring": 0,
  "a reactor's ring": SetupFlag.SINGLE_ISSUER | SetupFlag.DEFER_TASKRUN | SetupFlag.SUBMIT_ALL,
};

for (const [name, flags] of Object.entries(LAYOUTS)) {
  test(`${name}: a chain that is torn goes no further than it was taken`, () => {
    const first = tornAfter(1, flags);
    assert.is(first.results.get(READ), 4096);
    assert.is(first.results.get(WRITE), LINK_TORN);
    assert.is(first.results.get(SYNC), -ECANCELED);
    assert.is(first.results.get(OTHER), 0);
    assert.is(first.written, "");

    const second = tornAfter(2, flags);
    assert.is(second.results.get(READ), 4096);
    assert.is(second.results.get(WRITE), 4096);
    assert.is(second.results.get(SYNC), LINK_TORN);
    assert.is(second.results.get(OTHER), 0);
    assert.is(second.written, "f".repeat(4096));
  });

  test(`${name}: a batch that is parted between chains loses nothing`, () => {
    for (const count of [0, 3, 4]) {
      const { results, written } = tornAfter(count, flags);
      assert.equal(
        [READ, WRITE, SYNC, OTHER].map((user) => results.get(user)),
        [4096, 4096, 0, 0],
      );
      assert.is(written, "f".repeat(4096));
    }
  });
}

test.run();
