import { ReactorThread } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";

const OPERATIONS = 1_000_000;

/** Garbage collections of the reactor's thread while it completes OPERATIONS operations. */
function collections(allocate: boolean): Promise<number> {
  return new Promise((resolve, reject) => {
    const module = new URL("./workers/nop-loop.js", import.meta.url);
    let counted = -1;
    new ReactorThread(
      module,
      { operations: OPERATIONS, allocate },
      (message) => {
        counted = (message as { collections: number }).collections;
      },
      () => (counted < 0 ? reject(new Error("the reactor failed")) : resolve(counted)),
    );
  });
}

test("a million operations of a reactor cause no garbage collection", async () => {
  assert.is(await collections(false), 0);
});

test("one small object per operation would be seen", async () => {
  assert.ok((await collections(true)) > 0);
});

test.run();
