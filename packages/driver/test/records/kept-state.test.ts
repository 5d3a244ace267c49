import { test } from "uvu";
import * as assert from "uvu/assert";
import { KeptState } from "../../dist/records/kept-state.js";

test("a closed or removed state never returns", () => {
  const closed = new KeptState();
  closed.leave();
  assert.ok(closed.hasLeft);
  closed.close();
  closed.close();
  assert.ok(closed.isClosed && !closed.isRemoved);
  assert.throws(() => closed.leave(), /closed becomes left/);
  const removed = new KeptState();
  removed.remove();
  assert.throws(() => removed.leave(), /removed becomes left/);
});

test("a removed state stays removed when it is closed, and keeps the reason", () => {
  const state = new KeptState();
  state.remove("the medium fails");
  assert.not(state.isClosed);
  state.close();
  assert.ok(state.isClosed && state.isRemoved);
  state.remove();
  assert.is(state.failure, "the medium fails");
});

test("a closed state can be removed", () => {
  const state = new KeptState();
  state.close();
  state.remove();
  assert.ok(state.isClosed && state.isRemoved);
  assert.is(state.failure, undefined);
});

test.run();
