import { test } from "uvu";
import * as assert from "uvu/assert";
import { type After, RunLimit } from "../dist/run-limit.js";

const LIMIT_MS = 60_000;

/** A clock and its timers. A pause is a step of the clock, after which what is due runs once. */
class PausedProcess {
  nowMs = 0;
  #timers = new Set<{ readonly atMs: number; readonly run: () => void }>();

  readonly after: After = (ms, run) => {
    const timer = { atMs: this.nowMs + ms, run };
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  };

  runs(ms: number): void {
    for (const endMs = this.nowMs + ms; this.nowMs < endMs; this.pause(1));
  }

  pause(ms: number): void {
    this.nowMs += ms;
    for (const timer of this.#timers) {
      if (timer.atMs > this.nowMs) continue;
      this.#timers.delete(timer);
      timer.run();
    }
  }

  get timers(): number {
    return this.#timers.size;
  }
}

function limitOf(process: PausedProcess, limitMs = LIMIT_MS) {
  let times = 0;
  const limit = new RunLimit(limitMs, () => times++, process.after);
  return { limit, times: () => times };
}

test("a limit is over when the process has run for so long", () => {
  const process = new PausedProcess();
  const { limit, times } = limitOf(process);
  process.runs(LIMIT_MS - 1);
  assert.not.ok(limit.isOver);
  process.runs(1);
  assert.ok(limit.isOver);
  process.runs(LIMIT_MS);
  assert.is(times(), 1);
  assert.is(process.timers, 0);
});

test("a pause of any length counts as a tick at most", () => {
  const process = new PausedProcess();
  const { limit } = limitOf(process);
  for (let pauses = 0; pauses < 3; pauses++) {
    process.pause(100 * LIMIT_MS);
    process.runs(1);
  }
  process.runs((LIMIT_MS * 8) / 12);
  assert.not.ok(limit.isOver);
  process.runs(LIMIT_MS / 12);
  assert.ok(limit.isOver);
});

test("it begins again, and ends", () => {
  const process = new PausedProcess();
  const { limit, times } = limitOf(process);
  process.runs(LIMIT_MS - 1);
  limit.restart();
  process.runs(LIMIT_MS - 1);
  assert.not.ok(limit.isOver);
  limit.end();
  process.runs(LIMIT_MS);
  assert.is(times(), 0);
  assert.is(process.timers, 0);
});

test("a limit of nothing is over from the start", () => {
  const process = new PausedProcess();
  const { limit, times } = limitOf(process, 0);
  assert.ok(limit.isOver);
  process.runs(1);
  assert.is(times(), 0);
});

test.run();
