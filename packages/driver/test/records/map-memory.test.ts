/** Records of the main thread in a map that has no memory yet. */
import { fstatSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DiffAreaMap, firstMapBytes } from "@blksnap/engine";
import { MappedMemory } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { takeMapMemory } from "../../dist/records/map-memory.js";
import { StateDirectory } from "../../dist/records/state-directory.js";

const GEOMETRY = {
  capacityBytes: 2 ** 36,
  logicalBlockBytes: 512,
  chunkShift: 18,
  blockShift: 12,
};
/** Bytes of entries and hole bits of 8192 chunks. */
const SLICE_BYTES = 8192 * 24;

test("memory is allocated for one slice at a time, and recorded content stays", async () => {
  const root = mkdtempSync(join(tmpdir(), "blksnap-map-"));
  const state = new StateDirectory(root);
  try {
    const hereBytes = firstMapBytes(GEOMETRY);
    const file = await state.createMap("area-1", DiffAreaMap.byteLength(GEOMETRY), hereBytes);
    const memory = MappedMemory.file(file.fd, 0, file.lengthBytes);
    const map = DiffAreaMap.create(memory.buffer, GEOMETRY, undefined, false);
    const before = fstatSync(file.fd).blocks;
    takeMapMemory(file, map, 8192);
    assert.equal(
      [8191, 8192, 16_383, 16_384].map((chunk) => map.hasMemory(chunk)),
      [false, true, true, false],
    );
    map.setSlot(8192, 3);
    map.setSaved(8192, 1, 2);
    map.setLost(16_383, 0, 64);
    takeMapMemory(file, map, 16_384);
    takeMapMemory(file, map, 8192);
    assert.equal([map.slotOf(8192), map.nextSaved(8192, 0, 64)], [3, 1]);
    assert.is(map.nextUnsaved(16_383, 0, 64), 64);
    assert.ok((fstatSync(file.fd).blocks - before) * 512 <= 2 * SLICE_BYTES + 65_536);
    memory.unmap();
    await state.removeMap(file);
  } finally {
    state.close();
    rmSync(root, { recursive: true });
  }
});

test.run();
