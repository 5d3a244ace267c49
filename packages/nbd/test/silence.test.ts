import { test } from "uvu";
import * as assert from "uvu/assert";
import { type LimitedSocket, limitSilence } from "../dist/silence.js";

const LIMIT_MS = 60_000;

/** A socket, and a clock. A pause is a step of the clock, after which what is due runs once, as in Node. */
class PausedSocket implements LimitedSocket {
  bytesRead = 0;
  bytesWritten = 0;
  #nowMs = 0;
  #tickMs = 0;
  #atMs: number | undefined;
  #listener: () => void = () => undefined;

  setTimeout(ms: number): never {
    this.#tickMs = ms;
    this.#atMs = this.#nowMs + ms;
    return this as never;
  }

  on(_: "timeout", listener: () => void): void {
    this.#listener = listener;
  }

  runs(ms: number): void {
    for (let left = ms; left > 0; left--) this.pause(1);
  }

  pause(ms: number): void {
    this.#nowMs += ms;
    if (this.#atMs === undefined || this.#atMs > this.#nowMs) return;
    this.#atMs = undefined;
    this.#listener();
  }

  /** Node sets the timer again. */
  transfers(direction: "bytesRead" | "bytesWritten"): void {
    this[direction] += 28;
    this.setTimeout(this.#tickMs);
  }
}

function limited() {
  const socket = new PausedSocket();
  const state = { isOwed: true, silences: 0 };
  limitSilence(
    socket,
    LIMIT_MS,
    () => state.isOwed,
    () => state.silences++,
  );
  return { socket, state };
}

test("a server that owes a reply is silent for the limit", () => {
  const { socket, state } = limited();
  socket.runs(LIMIT_MS - 1);
  assert.is(state.silences, 0);
  socket.runs(1);
  assert.is(state.silences, 1);
});

test("what the process did not run counts as a tick at most", () => {
  const { socket, state } = limited();
  socket.runs(1000);
  socket.pause(24 * 3_600_000);
  socket.runs(LIMIT_MS * 0.9);
  assert.is(state.silences, 0);
  socket.runs(LIMIT_MS * 0.1);
  assert.is(state.silences, 1);
});

test("each read or write restarts the limit", () => {
  const { socket, state } = limited();
  for (const direction of ["bytesRead", "bytesWritten", "bytesRead"] as const) {
    socket.runs(LIMIT_MS - 1);
    socket.transfers(direction);
  }
  socket.runs(LIMIT_MS - 1);
  assert.is(state.silences, 0);
  socket.runs(1);
  assert.is(state.silences, 1);
});

test("without a debt there is no silence, and with the next request it begins", () => {
  const { socket, state } = limited();
  state.isOwed = false;
  socket.runs(3 * LIMIT_MS);
  state.isOwed = true;
  socket.transfers("bytesWritten");
  socket.runs(LIMIT_MS - 1);
  assert.is(state.silences, 0);
  socket.runs(1);
  assert.is(state.silences, 1);
});

test.run();
