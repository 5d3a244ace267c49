/** Checks that diff reports every change. It may report more. */
import * as assert from "uvu/assert";

/** Offsets of the blocks in which two states of a device differ. */
export function changedBlocks(before, after, blockBytes) {
  const changed = [];
  for (let at = 0; at < before.length; at += blockBytes) {
    const same = before.subarray(at, at + blockBytes).equals(after.subarray(at, at + blockBytes));
    if (!same) changed.push(at);
  }
  return changed;
}

/** Fails unless each changed block lies in one of the ranges that diff answered. */
export function assertCovered(offsets, ranges) {
  for (const offset of offsets) {
    const hit = ranges.find(
      (range) => range.offset_bytes <= offset && offset < range.offset_bytes + range.length_bytes,
    );
    assert.ok(hit, `the block at ${offset} changed, and diff does not say so`);
  }
}
