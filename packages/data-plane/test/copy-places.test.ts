/** Which areas have places for copies beside their writes. */
import { OverflowPolicy, type TrackerEngine } from "@blksnap/engine";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { placesFor } from "../dist/copy-places.js";
import type { AreaSetup } from "../dist/messages.js";

const WINDOW_BYTES = 1 << 20;

type Own = Partial<Pick<AreaSetup, "overflow" | "journal">>;

function places(blockBytes: number, own: Own = {}) {
  const engine = { front: { depth: 64 }, geometry: { blockBytes } } as unknown as TrackerEngine;
  const overflow = { policy: OverflowPolicy.BREAK_SNAPSHOT } as AreaSetup["overflow"];
  return placesFor(engine, WINDOW_BYTES, { overflow, ...own });
}

test("areas have places, but where a block finds no room in one, a write can be refused, or a journal is kept", () => {
  assert.equal(places(4096), { count: 64, placeBytes: 16_384 });
  assert.equal(places(16_384), { count: 64, placeBytes: 16_384 });
  assert.is(places(32_768), undefined);
  for (const policy of [OverflowPolicy.FAIL_WRITES, OverflowPolicy.BLOCK_WRITES]) {
    assert.is(places(4096, { overflow: { policy } as AreaSetup["overflow"] }), undefined);
  }
  assert.is(places(4096, { journal: {} as NonNullable<AreaSetup["journal"]> }), undefined);
});

test.run();
