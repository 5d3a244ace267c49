/** Which areas have places for copies beside their writes, and of which length. */
import { closeSync } from "node:fs";
import { createRequire, syncBuiltinESMExports } from "node:module";
import { OverflowPolicy, type TrackerEngine } from "@blksnap/engine";
import { createMemoryFile } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { placesFor } from "../dist/copy-places.js";
import type { AreaSetup } from "../dist/messages.js";

const WINDOW_BYTES = 1 << 20;
const SHORT = { count: 64, placeBytes: 16_384 };
const LONG = { count: 64, placeBytes: 65_536 };

type Own = Partial<Pick<AreaSetup, "overflow" | "journal">>;

function places(blockBytes: number, own: Own = {}) {
  const engine = { front: { depth: 64 }, geometry: { blockBytes } } as unknown as TrackerEngine;
  const overflow = { policy: OverflowPolicy.BREAK_SNAPSHOT } as AreaSetup["overflow"];
  const map = { fd: createMemoryFile("map"), lengthBytes: 0 };
  try {
    return placesFor(engine, WINDOW_BYTES, { overflow, map, ...own });
  } finally {
    closeSync(map.fd);
  }
}

test("areas have places, but where a block finds no room in one, a write can be refused, or a journal is kept", () => {
  assert.equal(places(4096), LONG);
  assert.equal(places(65_536), LONG);
  assert.is(places(131_072), undefined);
  for (const policy of [OverflowPolicy.FAIL_WRITES, OverflowPolicy.BLOCK_WRITES]) {
    assert.is(places(4096, { overflow: { policy } as AreaSetup["overflow"] }), undefined);
  }
  assert.is(places(4096, { journal: {} as NonNullable<AreaSetup["journal"]> }), undefined);
});

test("places are long where they are a 64th of what is free, and half of all is", () => {
  const fs = createRequire(import.meta.url)("node:fs");
  const { statfsSync } = fs;
  const placesWith = (blocks: number, bavail: number, blockBytes = 4096) => {
    fs.statfsSync = () => ({ bsize: 4096, blocks, bavail });
    syncBuiltinESMExports();
    return places(blockBytes);
  };
  // A page of records, and 16 for each place.
  const least = 64 * (1 + 64 * 16);
  try {
    assert.equal(placesWith(least, least), LONG);
    assert.equal(placesWith(least, least - 1), SHORT);
    assert.equal(placesWith(2 * least, least), LONG);
    assert.equal(placesWith(2 * least + 2, least), SHORT);
    assert.equal(placesWith(0, 0), LONG, "there is no limit");
    assert.equal(placesWith(least, 0, 16_384), SHORT);
    assert.is(placesWith(least, 0, 32_768), undefined);
  } finally {
    Object.assign(fs, { statfsSync });
    syncBuiltinESMExports();
  }
});

test.run();
