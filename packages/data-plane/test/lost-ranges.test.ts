/** Ranges of an area that are lost while they are searched. */
import { DiffAreaMap } from "@blksnap/engine";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { LostRanges } from "../dist/lost-ranges.js";
import type { LostRange } from "../dist/messages.js";
import type { Slice, Slices } from "../dist/slices.js";

const BLOCK_BYTES = 4096;
const CHUNKS = 2 ** 20;
/** Chunks from one in use to the next: more of these than one turn looks at. */
const USED_EVERY = 16;
const CHUNK_BYTES = 32 * BLOCK_BYTES;
const GEOMETRY = {
  capacityBytes: CHUNKS * CHUNK_BYTES,
  logicalBlockBytes: 512,
  blockShift: 12,
  chunkShift: 17,
};

function world() {
  const map = DiffAreaMap.create(new ArrayBuffer(DiffAreaMap.byteLength(GEOMETRY)), GEOMETRY);
  for (let chunk = 1; chunk < CHUNKS; chunk += USED_EVERY) map.setSlot(chunk, chunk);
  const work: Slice[] = [];
  const slices = { run: (slice: Slice) => void (slice() && work.push(slice)) };
  const lost = new LostRanges(slices as Slices);
  lost.use(map);
  const answers: (readonly LostRange[])[] = [];
  const ask = () => lost.read((ranges) => answers.push(ranges));
  const turns = () => {
    for (let slice = work.shift(); slice !== undefined; slice = work.shift())
      if (slice()) work.push(slice);
  };
  const rangeOf = (chunk: number) => ({
    offsetBytes: chunk * CHUNK_BYTES,
    lengthBytes: BLOCK_BYTES,
  });
  return { map, lost, work, answers, ask, turns, rangeOf };
}

test("a caller gets what was lost before its call, also behind a scan under way", () => {
  const { map, work, answers, ask, turns, rangeOf } = world();
  map.setLost(CHUNKS - 1, 0, 1);
  ask();
  assert.is(work.length, 1, "the scan is under way");
  map.setLost(0, 0, 1);
  ask();
  turns();
  const last = rangeOf(CHUNKS - 1);
  assert.equal(answers, [[last], [rangeOf(0), last]]);
});

test("without a loss meanwhile all callers are answered by one scan", () => {
  const { map, work, answers, ask, turns, rangeOf } = world();
  map.setLost(CHUNKS - 1, 0, 1);
  ask();
  ask();
  assert.is(work.length, 1);
  turns();
  assert.equal(answers, [[rangeOf(CHUNKS - 1)], [rangeOf(CHUNKS - 1)]]);
});

test("at the end of the area all callers are answered", () => {
  const { map, lost, answers, ask } = world();
  map.setLost(CHUNKS - 1, 0, 1);
  ask();
  map.setLost(0, 0, 1);
  ask();
  lost.use(undefined);
  assert.equal(answers, [[], []]);
});

test.run();
