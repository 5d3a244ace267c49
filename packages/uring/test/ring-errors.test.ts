import { prepareNop, Ring, type UringError } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { openDescriptors, runChild } from "./support.js";

const EINVAL = 22;
const CQE32 = 0x800;

test("a ring that cannot be is an error with code and errno, and leaves no descriptor", () => {
  const before = openDescriptors();
  for (const options of [
    { entries: 0 },
    { entries: 1 << 20 },
    { entries: 64, cqEntries: 8 },
    { entries: 8, flags: CQE32 },
  ]) {
    assert.throws(
      () => new Ring(options),
      (error: UringError) =>
        error.code === "RING_SETUP_FAILED" &&
        error.errno === EINVAL &&
        /EINVAL/.test(error.message),
    );
  }
  assert.is(openDescriptors(), before);
});

test("closing twice is closing once, and views are empty", () => {
  const before = openDescriptors();
  const ring = new Ring({ entries: 8 });
  ring.close();
  ring.close();
  assert.is(ring.sqes32.length, 0);
  assert.is(ring.cqes32.length, 0);
  assert.is(openDescriptors(), before);
});

test("a closed ring reaches no other file that got its descriptor", () => {
  const closed = new Ring({ entries: 8 });
  closed.close();
  const other = new Ring({ entries: 8 });
  assert.is(other.fd, closed.fd);
  prepareNop(closed, 1, 0, 0);
  assert.throws(
    () => closed.submitAndWait(0),
    (error: UringError) => error.code === "RING_CLOSED",
  );
  assert.throws(
    () => closed.registerFiles(4),
    (error: UringError) => error.code === "REGISTER_FAILED",
  );
  other.registerFiles(4);
  assert.is(other.ready(), 0);
  other.close();
});

test("views keep the memory of a forgotten ring", () => {
  const child = runChild(
    `import { Ring, prepareNop } from "@blksnap/uring";
    import { setTimeout } from "node:timers/promises";
    let ring = new Ring({ entries: 8 });
    prepareNop(ring, 77, 0, 0);
    const { sqes32 } = ring;
    ring = undefined;
    for (let i = 0; i < 10; i++) { gc(); await setTimeout(1); }
    console.log(sqes32[8]);`,
    ["--expose-gc"],
  );
  assert.is(child.signal, null);
  assert.is(child.output.trim(), "77");
});

test.run();
