/** A host that throws: at most one request fails by it. */
import { RequestOp } from "@blksnap/engine";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { FakeHost } from "./fake-host.js";

const { READ, WRITE } = RequestOp;
const EIO = -5;
const BLOCK_BYTES = 4096;

class ThrowingHost extends FakeHost {
  /** The next call of this name with this id throws. */
  armed:
    | { call: "submitOriginal" | "completeFront" | "submitRun" | "completeImage"; id: number }
    | undefined;

  private meet(call: string, id: number): void {
    if (this.armed?.call !== call || this.armed.id !== id) return;
    this.armed = undefined;
    throw new Error("thrown by the host");
  }

  override submitOriginal(id: number): void {
    this.meet("submitOriginal", id);
    super.submitOriginal(id);
  }

  override submitRun(id: number): void {
    this.meet("submitRun", id);
    super.submitRun(id);
  }

  override completeFront(tag: number, result: number): void {
    super.completeFront(tag, result);
    this.meet("completeFront", tag);
  }

  override completeImage(tag: number, result: number): void {
    super.completeImage(tag, result);
    this.meet("completeImage", tag);
  }
}

/** Everything still works: reads, writes with copies, a hold that drains. */
function assertAlive(host: ThrowingHost): void {
  const { chunkShift } = host.geometry;
  host.front(5, WRITE, 2 << chunkShift, BLOCK_BYTES, 77);
  host.front(6, READ, 3 << chunkShift, BLOCK_BYTES);
  host.run();
  assert.is(host.frontResults.get(5), BLOCK_BYTES);
  assert.is(host.frontResults.get(6), BLOCK_BYTES);
  const { drained } = host;
  host.engine.hold();
  assert.is(host.drained, drained + 1);
  host.engine.release();
  assert.is(host.engine.inflightWrites, 0);
}

test("a throw when a write is issued ends that write, and later ones continue", () => {
  const host = new ThrowingHost();
  const area = host.take(0);
  for (let tag = 0; tag < 4; tag++) host.front(tag, WRITE, tag * BLOCK_BYTES, BLOCK_BYTES, 9);
  host.armed = { call: "submitOriginal", id: 1 };
  // Denied: nothing is copied, and all four are issued in one turn.
  assert.throws(() => area.denySlots(28), "thrown by the host");
  host.run();
  assert.is(host.frontResults.get(1), EIO);
  for (const tag of [0, 2, 3]) assert.is(host.frontResults.get(tag), BLOCK_BYTES);
  assertAlive(host);
});

test("a throw at the take ends one of the held writes, and the take succeeds", () => {
  const host = new ThrowingHost();
  host.engine.hold();
  for (let tag = 0; tag < 3; tag++) host.front(tag, WRITE, tag * BLOCK_BYTES, BLOCK_BYTES, 9);
  host.armed = { call: "submitOriginal", id: 0 };
  assert.throws(() => host.engine.release(), "thrown by the host");
  host.run();
  assert.is(host.frontResults.get(0), EIO);
  for (const tag of [1, 2]) assert.is(host.frontResults.get(tag), BLOCK_BYTES);
  host.take();
  assertAlive(host);
});

test("a throw when a held device's last write ends does not keep the hold from draining", () => {
  const host = new ThrowingHost();
  host.front(0, WRITE, 0, BLOCK_BYTES, 9);
  host.engine.hold();
  assert.is(host.drained, 0);
  host.armed = { call: "completeFront", id: 0 };
  assert.throws(() => host.run(), "thrown by the host");
  assert.is(host.drained, 1);
  host.engine.release();
  host.take();
  assertAlive(host);
});

test("a throw in a part of an image request does not affect the front", () => {
  const host = new ThrowingHost();
  host.take();
  for (let id = 0; id < 16; id++) {
    host.armed = { call: "submitRun", id };
    try {
      host.image(0, READ, 0, BLOCK_BYTES);
    } catch (error) {
      assert.match((error as Error).message, "thrown by the host");
      break;
    }
  }
  assert.is(host.armed, undefined);
  assertAlive(host);
});

test("a throw at the end of an image request does not stop those that waited for its run", () => {
  const host = new ThrowingHost({ runsMax: 1 });
  host.take();
  for (const tag of [0, 1, 2]) host.image(tag, READ, tag * BLOCK_BYTES, BLOCK_BYTES);
  host.armed = { call: "completeImage", id: 0 };
  assert.throws(() => host.answer("run"), "thrown by the host");
  host.run();
  for (const tag of [0, 1, 2]) assert.is(host.imageResults.get(tag), BLOCK_BYTES);
  assertAlive(host);
});

test.run();
