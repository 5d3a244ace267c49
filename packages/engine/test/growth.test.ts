/** A device that becomes larger under its front. */
import { CbtMap, CbtReason, EngineError, RequestOp } from "@blksnap/engine";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { FakeHost, GENERATION } from "./fake-host.js";

const { WRITE, DISCARD } = RequestOp;
const CBT_SHIFT = 16;

/** As the host's device, with one block of the map more. */
function grown({ geometry }: FakeHost, more: object = {}) {
  const after = { ...geometry, capacityBytes: geometry.capacityBytes + 2 ** CBT_SHIFT, ...more };
  const { capacityBytes } = after;
  const buffer = new ArrayBuffer(CbtMap.byteLength(capacityBytes, CBT_SHIFT));
  const options = { capacityBytes, blockShift: CBT_SHIFT, generation: GENERATION };
  const cbt = CbtMap.create(buffer, { ...options, reason: CbtReason.CAPACITY_CHANGED });
  return { after, cbt, grow: (host: FakeHost) => host.engine.grow(after, cbt) };
}

function refusal(act: () => void): string | undefined {
  try {
    act();
  } catch (error) {
    if (error instanceof EngineError) return error.code;
    throw error;
  }
  return undefined;
}

test("writes reach the new part, and are marked in the new map only", () => {
  const host = new FakeHost();
  const { capacityBytes } = host.geometry;
  host.front(0, WRITE, capacityBytes, 512, 200);
  assert.is(host.frontResults.get(0), -22, "beyond the end");
  host.engine.hold();
  host.front(1, WRITE, 0, 512, 201);
  const { after, cbt, grow } = grown(host);
  grow(host);
  assert.is(host.engine.geometry.capacityBytes, after.capacityBytes);
  host.engine.release();
  // The host's disk is as it was: the question is what the engine asks for.
  host.fault = () => 512;
  host.front(2, WRITE, capacityBytes, 512, 202);
  const last = cbt.blockCount - 1;
  assert.equal([cbt.isMarked(0), cbt.isMarked(1), cbt.isMarked(last)], [true, false, true]);
  assert.is(host.cbt.isMarked(0), false, "a write that was held begins after the growth");
});

test("it is refused while anything needs the old size, and then nothing has changed", () => {
  const cases: [string, (host: FakeHost) => void][] = [
    ["not held", () => undefined],
    [
      "a write in flight",
      (host) => {
        host.front(0, WRITE, 0, 512, 200);
        host.engine.hold();
      },
    ],
    [
      "an area",
      (host) => {
        host.take();
        host.engine.hold();
      },
    ],
    [
      "discards that were kept back",
      (host) => {
        host.take();
        host.front(0, DISCARD, 0, 65_536);
        host.engine.dropArea();
        host.engine.hold();
      },
    ],
  ];
  for (const [what, prepare] of cases) {
    const host = new FakeHost();
    prepare(host);
    const { grow } = grown(host);
    assert.is(
      refusal(() => grow(host)),
      "BAD_STATE",
      what,
    );
    assert.is(host.engine.geometry.capacityBytes, host.geometry.capacityBytes, what);
  }
});

test("only the size may differ, and not become smaller", () => {
  const host = new FakeHost();
  host.engine.hold();
  for (const more of [{ chunkShift: 17 }, { blockShift: 13 }, { capacityBytes: 4096 }]) {
    const { grow } = grown(host, more);
    assert.is(
      refusal(() => grow(host)),
      "BAD_GEOMETRY",
    );
  }
  const { after } = grown(host);
  assert.is(
    refusal(() => host.engine.grow(after, host.cbt)),
    "MAP_GEOMETRY",
  );
});

test.run();
