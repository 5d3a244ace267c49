import { test } from "uvu";
import * as assert from "uvu/assert";
import { JournalLife, JournalState } from "../dist/journal-state.js";

const { IDLE, SOON, COMMITTING, FULL, FAILED, CLOSING, CLOSED } = JournalState;

/** A shortest path from the initial state to each state. */
const WAYS = new Map<number, readonly number[]>([
  [IDLE, []],
  [SOON, [SOON]],
  [COMMITTING, [COMMITTING]],
  [FULL, [FULL]],
  [FAILED, [COMMITTING, FAILED]],
  [CLOSING, [CLOSING]],
  [CLOSED, [CLOSING, CLOSED]],
]);

function lifeIn(state: number): JournalLife {
  const life = new JournalLife();
  for (const next of WAYS.get(state) ?? []) life.enter(next);
  assert.ok(life.is(state));
  return life;
}

test("a journal enters only states that may follow", () => {
  const followers = new Map<number, readonly number[]>([
    [IDLE, [SOON, COMMITTING, FULL, CLOSING]],
    [SOON, [IDLE, CLOSING]],
    [COMMITTING, [IDLE, FAILED, CLOSING]],
    [FULL, [IDLE, FAILED, CLOSING]],
    [FAILED, [CLOSING]],
    [CLOSING, [CLOSED]],
    [CLOSED, []],
  ]);
  for (const [state, allowed] of followers) {
    for (const next of WAYS.keys()) {
      const life = lifeIn(state);
      if (allowed.includes(next)) {
        life.enter(next);
        assert.ok(life.is(next));
      } else {
        assert.throws(() => life.enter(next), /cannot go over/);
        assert.ok(life.is(state));
      }
    }
  }
});

test("nothing is committed after a failure, and files are freed only on close", () => {
  const over = [...WAYS.keys()].filter((state) => lifeIn(state).isOver);
  assert.equal(over, [FAILED, CLOSING, CLOSED]);
  const closing = [...WAYS.keys()].filter((state) => lifeIn(state).isClosing);
  assert.equal(closing, [CLOSING, CLOSED]);
});

test.run();
