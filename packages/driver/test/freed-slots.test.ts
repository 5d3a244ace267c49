import { test } from "uvu";
import * as assert from "uvu/assert";
import { FreedSlots } from "../dist/reactor/freed-slots.js";

function world() {
  const told: number[][] = [];
  const granted: number[] = [];
  const due: (() => void)[] = [];
  const reactor = { setTimer: (_ms: number, then: () => void) => due.push(then) };
  const slots = new FreedSlots(reactor as never, {
    tell: (freed) => told.push(freed),
    grant: (slot) => granted.push(slot),
  });
  const turn = () => {
    for (const then of due.splice(0)) then();
  };
  return { slots, told, granted, turn };
}

test("freed slots are told in one message", () => {
  const { slots, told, granted, turn } = world();
  slots.add(1, false);
  slots.add(2, false);
  assert.not.ok(slots.reuse(8));
  turn();
  assert.equal([told, granted], [[[1, 2]], []]);
});

test("those of a journal's area are told to nobody, and used again", () => {
  const { slots, told, granted, turn } = world();
  for (let slot = 0; slot < 40; slot++) slots.add(slot, true);
  assert.ok(slots.reuse(10));
  assert.equal(granted, [], "not while the engine asks");
  turn();
  assert.is(granted.length, 10);
  assert.ok(slots.reuse(100));
  turn();
  assert.equal([granted.length, told], [40, []]);
  assert.not.ok(slots.reuse(1));
});

test("nothing is granted after the area's end", () => {
  const { slots, granted, turn } = world();
  slots.add(1, true);
  assert.ok(slots.reuse(1));
  slots.clear();
  turn();
  assert.equal(granted, []);
});

test.run();
