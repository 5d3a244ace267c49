import { ReactorThread } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";

const OPERATIONS = 1_000_000;
const TRIES = 5;

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
  // Code that a busy machine has not compiled yet may allocate. What does once it is compiled does so each time.
  let counted = await collections(false);
  for (let tries = 1; tries < TRIES && counted > 0; tries++) counted = await collections(false);
  assert.is(counted, 0);
});

test("one small object per operation would be seen", async () => {
  assert.ok((await collections(true)) > 0);
});

test.run();
