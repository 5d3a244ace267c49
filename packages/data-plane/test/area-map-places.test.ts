/** Maps with places for copies behind their writes. */
import { closeSync, fstatSync, ftruncateSync, readFileSync } from "node:fs";
import { createRequire, syncBuiltinESMExports } from "node:module";
import { type CopyPlaces, DiffAreaMap } from "@blksnap/engine";
import { ENOMEM } from "@blksnap/errors";
import { createMemoryFile } from "@blksnap/uring";
import { native } from "@blksnap/uring/testing";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { AreaMapFile } from "../dist/area-map-file.js";
import { AREA, Bench, GIB, geometryOf, newMap, SECTOR } from "./area-map-bench.js";

const MADV_POPULATE_WRITE = 23;
const PLACES = { count: 3, placeBytes: 16_384 };
/** Makes a map with places; counts how often a file was mapped, and what is still mapped. */
function withPlaces(
  code: (file: AreaMapFile, fd: number, mapped: { count: number; now: number }) => void,
  places: readonly CopyPlaces[] = [PLACES],
): void {
  const bench = new Bench(GIB);
  const geometry = geometryOf(GIB);
  const fd = createMemoryFile("map");
  ftruncateSync(fd, bench.lengthBytes);
  const { mapFile, unmap } = native;
  const mapped = { count: 0, now: 0 };
  native.mapFile = (...words) => {
    mapped.count++;
    mapped.now++;
    return mapFile(...words);
  };
  native.unmap = (...words) => {
    mapped.now--;
    return unmap(...words);
  };
  try {
    const map = { fd, lengthBytes: bench.lengthBytes };
    code(AreaMapFile.create(bench.reactor, newMap(map, geometry, places), AREA), fd, mapped);
  } finally {
    Object.assign(native, { mapFile, unmap });
  }
  closeSync(fd);
  bench.file.close();
  bench.end();
}

test("a map with places is mapped once, and stays mapped while its places are in use", () => {
  withPlaces((file, fd, mapped) => {
    const { places } = file;
    assert.is(places?.count, PLACES.count);
    const end = (places?.offsetBytes ?? 0) + PLACES.count * PLACES.placeBytes;
    assert.is(fstatSync(fd).size, end);
    assert.ok(fstatSync(fd).blocks * SECTOR >= PLACES.count * PLACES.placeBytes);
    places?.hold();
    file.close();
    assert.equal(mapped, { count: 1, now: 1 });
    places?.release();
    assert.equal(mapped, { count: 1, now: 0 });
  });
});

test("with memory only for shorter places, a map gets those", () => {
  const { advise } = native;
  let calls = 0;
  native.advise = (...words) =>
    words[3] === MADV_POPULATE_WRITE && calls++ === 0 ? -ENOMEM : advise(...words);
  try {
    withPlaces(
      (file, fd) => {
        assert.is(file.places?.placeBytes, PLACES.placeBytes);
        const end = file.places!.offsetBytes + PLACES.count * PLACES.placeBytes;
        assert.is(fstatSync(fd).size, end);
        file.close();
      },
      [{ ...PLACES, placeBytes: 65_536 }, PLACES],
    );
  } finally {
    native.advise = advise;
  }
});

test("without memory for places, a map does without", () => {
  const { advise } = native;
  native.advise = (...words) => (words[3] === MADV_POPULATE_WRITE ? -ENOMEM : advise(...words));
  try {
    withPlaces((file, fd, mapped) => {
      assert.is(file.places, undefined);
      const { copyRecords } = DiffAreaMap.open(readFileSync(fd).buffer.slice(0) as ArrayBuffer);
      assert.is(copyRecords, undefined, "nor does the next process look for them");
      file.close();
      assert.equal(mapped, { count: 2, now: 0 });
    });
  } finally {
    native.advise = advise;
  }
});

test("places leave three quarters of the free memory, and half of all, to maps that grow", () => {
  const fs = createRequire(import.meta.url)("node:fs");
  const { statfsSync } = fs;
  const hasPlaces = (blocks: number, bavail: number): boolean => {
    fs.statfsSync = () => ({ bsize: 4096, blocks, bavail });
    syncBuiltinESMExports();
    let places: object | undefined;
    withPlaces((file) => {
      ({ places } = file);
      file.close();
    });
    return places !== undefined;
  };
  try {
    assert.is(hasPlaces(100, 4 * 13), true, "a page, and four for each place");
    assert.is(hasPlaces(100, 4 * 13 - 1), false);
    assert.is(hasPlaces(1000, 500), true);
    assert.is(hasPlaces(1000, 499), false);
    assert.is(hasPlaces(0, 0), true, "there is no limit");
  } finally {
    Object.assign(fs, { statfsSync });
    syncBuiltinESMExports();
  }
});

test.run();
