import { prepareMessage, Ring } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { popCompletions } from "./support.js";

test("a message is a completion on the other ring", () => {
  const from = new Ring({ entries: 8 });
  const to = new Ring({ entries: 8 });
  prepareMessage(from, to.fd, 42, 1, -3, 9, 0);
  assert.equal(popCompletions(from, 1), [{ low: 9, high: 0, result: 0 }]);
  assert.equal(popCompletions(to, 1), [{ low: 1, high: -3, result: 42 }]);
  from.close();
  to.close();
});

test("a descriptor that is not a ring takes no message", () => {
  const ring = new Ring({ entries: 8 });
  prepareMessage(ring, 0, 42, 1, 0, 9, 0);
  assert.ok(popCompletions(ring, 1)[0].result < 0);
  ring.close();
});

test.run();
