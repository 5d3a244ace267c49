/** Which areas have places for copies behind their writes, and how long these are. */
import { closeSync, ftruncateSync } from "node:fs";
import { createRequire, syncBuiltinESMExports } from "node:module";
import {
  type CopyPlaces,
  DiffAreaMap,
  Geometry,
  OverflowPolicy,
  type TrackerEngine,
} from "@blksnap/engine";
import { createMemoryFile } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { growForPlaces, placesFor } from "../dist/copy-places.js";
import type { AreaSetup } from "../dist/messages.js";

const WINDOW_BYTES = 1 << 20;
const SHORT = { count: 64, placeBytes: 16_384 };
const LONG = { count: 64, placeBytes: 65_536 };

type Own = Partial<Pick<AreaSetup, "overflow" | "journal">>;

function places(blockBytes: number, own: Own = {}, depth = 64) {
  const engine = { front: { depth }, geometry: { blockBytes } } as unknown as TrackerEngine;
  const overflow = { policy: OverflowPolicy.BREAK_SNAPSHOT } as AreaSetup["overflow"];
  const map = { fd: createMemoryFile("map"), lengthBytes: 0 };
  try {
    return placesFor(engine, WINDOW_BYTES, { overflow, map, ...own });
  } finally {
    closeSync(map.fd);
  }
}

test("no places if a block does not fit, if a write may be refused or wait, or with a journal", () => {
  assert.equal(places(4096), [LONG, SHORT]);
  assert.equal(places(65_536), [LONG]);
  assert.equal(places(131_072), []);
  for (const policy of [OverflowPolicy.FAIL_WRITES, OverflowPolicy.BLOCK_WRITES]) {
    assert.equal(places(4096, { overflow: { policy } as AreaSetup["overflow"] }), []);
  }
  assert.equal(places(4096, { journal: {} as NonNullable<AreaSetup["journal"]> }), []);
});

test("a front with many tags has short places, because a reactor pins their memory in one turn", () => {
  assert.equal(places(4096, {}, 65), [{ ...SHORT, count: 65 }]);
  assert.equal(places(32_768, {}, 65), []);
});

/** Runs `code` with a file system of 4 KiB pages, of which so many are free. */
function withFree(code: (setFree: (blocks: number, bavail: number) => void) => void): void {
  const fs = createRequire(import.meta.url)("node:fs");
  const { statfsSync } = fs;
  try {
    code((blocks, bavail) => {
      fs.statfsSync = () => ({ bsize: 4096, blocks, bavail });
      syncBuiltinESMExports();
    });
  } finally {
    Object.assign(fs, { statfsSync });
    syncBuiltinESMExports();
  }
}

/** Pages of records, and of each place. */
const LONG_PAGES = 1 + 64 * 16;
const SHORT_PAGES = 1 + 64 * 4;

test("places are long if they take at most a 64th of the free memory, and seven eighths of all are free", () =>
  withFree((setFree) => {
    const placesWith = (blocks: number, bavail: number, blockBytes = 4096) => {
      setFree(blocks, bavail);
      return places(blockBytes);
    };
    const least = 64 * LONG_PAGES;
    assert.equal(placesWith(least, least), [LONG, SHORT]);
    assert.equal(placesWith(least, least - 1), [SHORT]);
    assert.equal(placesWith(8 * least, 7 * least), [LONG, SHORT]);
    assert.equal(placesWith(8 * least, 7 * least - 1), [SHORT]);
    assert.equal(placesWith(0, 0), [LONG, SHORT], "there is no limit");
    assert.equal(placesWith(least, 0, 16_384), [SHORT]);
    assert.equal(placesWith(least, 0, 32_768), []);
  }));

test("the long places of some devices leave room for short ones of many", () =>
  withFree((setFree) => {
    const geometry = new Geometry({
      ...{ capacityBytes: 2 ** 20, logicalBlockBytes: 512 },
      ...{ chunkShift: 18, blockShift: 12 },
    });
    const map = { fd: createMemoryFile("map"), lengthBytes: DiffAreaMap.byteLength(geometry) };
    ftruncateSync(map.fd, map.lengthBytes);
    for (const blocks of [100_000, 200_000, 400_000]) {
      /** How many devices get such places, one after the other. */
      const countWith = (some: (its: readonly CopyPlaces[]) => readonly CopyPlaces[]): number => {
        let bavail = blocks;
        for (let count = 0; ; count++) {
          setFree(blocks, bavail);
          const its = some(places(4096)).find((one) => growForPlaces(map, geometry, one));
          if (its === undefined) return count;
          bavail -= its.placeBytes === LONG.placeBytes ? LONG_PAGES : SHORT_PAGES;
        }
      };
      const [any, short] = [countWith((its) => its), countWith((its) => its.slice(-1))];
      assert.ok(any * 4 >= short * 3, `${blocks} pages: ${any} devices in place of ${short}`);
    }
    closeSync(map.fd);
  }));

test.run();
