/** One thread marks and switches, another reads the frozen map through a CbtMap of its own. */
import { isMainThread, Worker, workerData } from "node:worker_threads";
import { CbtMap } from "@blksnap/engine";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { GENERATION } from "./fake-host.js";

const BLOCKS = 1000;
const TAKES = 250;
const BLOCK_SHIFT = 16;

/** Interval `number` marks these blocks, so the frozen map of a take can be computed. */
function marks(block: number, number: number): boolean {
  return (block * 7 + number * 13) % 5 === 0;
}

/** What interval `number` does to a block that it marks: a discard, or a write. */
function discards(block: number, number: number): boolean {
  return (block + number) % 2 === 0;
}

function expected(block: number, taken: number): number {
  for (let number = taken; number > 0; number--) if (marks(block, number)) return number;
  return 0;
}

function own(buffer: SharedArrayBuffer, control: Int32Array): void {
  const map = CbtMap.open(buffer, { owner: true });
  const offset = new Float64Array(1);
  const length = Float64Array.of(2 ** BLOCK_SHIFT);
  for (let number = 1; number <= TAKES; number++) {
    for (let block = 0; block < BLOCKS; block++) {
      offset[0] = block * 2 ** BLOCK_SHIFT;
      if (!marks(block, number)) continue;
      map.markRequest(offset, length, 0);
      if (discards(block, number)) map.recordDiscard(offset[0], length[0]);
    }
    // Gives the reader time for a map that is being marked but not switched.
    Atomics.wait(control, 1, 0, 1);
    map.switch();
  }
  Atomics.store(control, 0, 1);
}

if (isMainThread) {
  test("a reader beside the owner always sees one whole take", async () => {
    const capacityBytes = BLOCKS * 2 ** BLOCK_SHIFT;
    const buffer = new SharedArrayBuffer(CbtMap.byteLength(capacityBytes, BLOCK_SHIFT));
    const options = { capacityBytes, blockShift: BLOCK_SHIFT, generation: GENERATION };
    const map = CbtMap.create(buffer, options);
    const control = new Int32Array(new SharedArrayBuffer(8));
    const worker = new Worker(new URL(import.meta.url), { workerData: { buffer, control } });
    const ended = new Promise((done) => worker.on("exit", done));
    const into = new Uint8Array(BLOCKS);
    const kinds = new Uint8Array(BLOCKS);
    const seen = new Set<number>();
    let discardsSeen = 0;
    while (Atomics.load(control, 0) === 0) {
      const taken = map.info().changesNumber;
      map.readFrozen(into, 0, BLOCKS, kinds);
      // If the number changed during the read, this read proves nothing.
      if (map.info().changesNumber !== taken) continue;
      seen.add(taken);
      for (let block = 0; block < BLOCKS; block++) {
        const number = expected(block, taken);
        assert.is(into[block], number, `block ${block} after take ${taken}`);
        discardsSeen += kinds[block];
        assert.ok(kinds[block] === 0 || discards(block, number), `block ${block} was written`);
      }
    }
    await ended;
    assert.ok(seen.size > 10, `looked at ${seen.size} takes`);
    assert.ok(discardsSeen > 1000, `saw ${discardsSeen} discards`);
  });
  test.run();
} else {
  own(workerData.buffer, workerData.control);
}
