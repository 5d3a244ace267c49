import { test } from "uvu";
import * as assert from "uvu/assert";
import { growDevice } from "../dist/growth.js";

/** A hold whose end the test decides, and slices of which it makes the turns. */
function world(exchange: () => boolean) {
  const done: (string | undefined)[] = [];
  const slices: (() => boolean)[] = [];
  const hold = { isActive: false, failure: undefined as Error | undefined };
  let onDrained = (): void => undefined;
  let onExpired = (): void => undefined;
  growDevice({
    deadlineMs: 10,
    exchange,
    done: ({ why }) => void done.push(why),
    slices: { run: (slice) => void (slice() && slices.push(slice)) },
    hold: {
      begin: (_, drained, expired) => {
        hold.isActive = true;
        onDrained = drained;
        onExpired = () => {
          hold.isActive = false;
          expired();
        };
      },
      release: () => {
        hold.isActive = false;
        if (hold.failure !== undefined) throw hold.failure;
      },
    },
  });
  const turn = (): void => void slices.shift()?.();
  return { done, hold, turn, drain: () => onDrained(), expire: () => onExpired() };
}

test("the exchange has a turn of its own, after the last write, and then writes continue", () => {
  let exchanges = 0;
  const { done, hold, turn, drain } = world(() => {
    assert.ok(hold.isActive);
    exchanges++;
    return true;
  });
  drain();
  assert.is(exchanges, 0, "not within the last write's answer");
  turn();
  assert.equal([exchanges, hold.isActive, done], [1, false, [undefined]]);
});

test("writes that do not end in time continue, and nothing is exchanged later", () => {
  const late = world(() => assert.unreachable("it has expired") as never);
  late.expire();
  assert.equal(late.done, ["writes in flight did not end in time"]);
  const between = world(() => assert.unreachable("it has expired") as never);
  between.drain();
  between.expire();
  between.turn();
  assert.is(between.done.length, 1);
});

test("an exchange that fails, or whose caller has given up, reports that, and writes continue", () => {
  const failing = world(() => {
    throw new Error("no memory");
  });
  failing.drain();
  failing.turn();
  assert.match(failing.done[0] ?? "", /no memory/);
  assert.is(failing.hold.isActive, false);
  const left = world(() => false);
  left.drain();
  left.turn();
  assert.equal(left.done, ["its caller no longer waits"]);
});

test("a held write that cannot be issued is not the growth's failure", () => {
  const { done, hold, turn, drain } = world(() => true);
  hold.failure = new Error("a write's");
  drain();
  assert.throws(turn, /a write's/);
  assert.equal(done, [undefined]);
});

test.run();
