/** The cost of a persistent tracker in operations of the ring. */
import { makeSlot } from "@blksnap/diff-storage";
import { CbtMap } from "@blksnap/engine";
import { readLog } from "@blksnap/journal";
import { Dice } from "@blksnap/testing";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { AreaJournal } from "../../../data-plane/dist/area-journal.js";
import { CbtJournal } from "../../../data-plane/dist/cbt-journal.js";
import { restoreCbt } from "../../dist/records/restored-cbt.js";
import { FakeReactor, type MediumFile } from "./medium.js";

const test = suite("journal-cost");

const BLOCK_SHIFT = 16;
const BLOCK_BYTES = 2 ** BLOCK_SHIFT;
const BLOCK_COUNT = 4096;
const LOG_SECTORS = 2048;
const DEPTH = 32;
/** The NOP at the end of the batch, and the write, which is synced. */
const OPERATIONS_PER_COMMIT = 2;
const AREA = "a8b4d1f0-0d4e-4a57-9c1e-3f5b7a90e2c6";
const ID = Uint8Array.from({ length: 16 }, (_, i) => i);

class Tracker {
  readonly kernel: FakeReactor = new FakeReactor(new Dice(1));
  readonly log: MediumFile = this.kernel.makeFile(LOG_SECTORS * 512);
  readonly cbt: CbtMap;
  readonly journal: CbtJournal;
  readonly checkpoint: Uint8Array;
  admitted = 0;
  readonly #offsetBytes = new Float64Array(DEPTH);
  readonly #lengthBytes = new Float64Array(DEPTH).fill(4096);

  constructor() {
    const capacityBytes = BLOCK_COUNT * BLOCK_BYTES;
    const buffer = new ArrayBuffer(CbtMap.byteLength(capacityBytes, BLOCK_SHIFT));
    const generation = Uint8Array.from(ID);
    this.cbt = CbtMap.create(buffer, { capacityBytes, blockShift: BLOCK_SHIFT, generation });
    this.checkpoint = new Uint8Array(CbtMap.checkpointBytes(BLOCK_COUNT));
    this.cbt.checkpoint().read(this.checkpoint, 0);
    const place = { fd: this.log.fd, logOffsetBytes: 0, logBytes: LOG_SECTORS * 512 };
    this.journal = new CbtJournal({
      reactor: this.kernel.asReactor(),
      setup: { ...place, usedSectors: 0, id: [...ID], nextSequence: 1, nextCommit: 1 },
      blockShift: BLOCK_SHIFT,
      blockCount: BLOCK_COUNT,
      requestsMax: DEPTH,
      isMarked: (block) => this.cbt.isMarked(block),
      onAdmitted: () => this.admitted++,
      onFault: (errno) => assert.unreachable(`errno ${errno}`),
      onLow: () => undefined,
    });
  }

  write(tag: number, block: number, at = 0): void {
    this.#offsetBytes[tag] = block * BLOCK_BYTES + at;
    this.cbt.markRequest(this.#offsetBytes, this.#lengthBytes, tag);
    if (this.journal.admit(this.#offsetBytes, this.#lengthBytes, tag)) this.admitted++;
  }

  settle(): void {
    while (!this.kernel.isIdle) this.kernel.step();
  }

  take(): void {
    this.journal.noteSwitch(this.cbt.info(), AREA);
    this.cbt.switch();
    this.settle();
  }

  restored(): CbtMap {
    const entries: [number, number, number, number][] = [];
    readLog(this.log.durable, ID, 1, (...entry) => void entries.push(entry));
    const buffer = new ArrayBuffer(CbtMap.restoredBytes(this.checkpoint));
    restoreCbt(buffer, { checkpoint: this.checkpoint, entries });
    return CbtMap.open(buffer);
  }
}

test("writes into recorded blocks cost no operation at all", () => {
  const tracker = new Tracker();
  for (let tag = 0; tag < DEPTH; tag++) tracker.write(tag, tag * 7);
  tracker.settle();
  const before = tracker.kernel.submitted;
  for (let i = 0; i < 10_000; i++) tracker.write(i % DEPTH, (i % DEPTH) * 7, 4096 * (i % 16));
  tracker.settle();
  assert.is(tracker.kernel.submitted, before);
  assert.is(tracker.admitted, 10_000 + DEPTH);
});

test("first writes of one batch share one commit", () => {
  const tracker = new Tracker();
  for (let tag = 0; tag < DEPTH; tag++) tracker.write(tag, 100 + tag * 9);
  assert.is(tracker.admitted, 0);
  tracker.settle();
  assert.is(tracker.admitted, DEPTH);
  assert.is(tracker.log.syncs, 1);
  assert.is(tracker.kernel.submitted, OPERATIONS_PER_COMMIT);
});

test("a sequential pass costs a commit per 4 MiB, and a few at the beginning", () => {
  const tracker = new Tracker();
  for (let block = 0; block < BLOCK_COUNT; block++) {
    for (let at = 0; at < BLOCK_BYTES; at += 4096) tracker.write(0, block, at);
    tracker.settle();
  }
  const passBytes = BLOCK_COUNT * BLOCK_BYTES;
  assert.ok(tracker.log.syncs <= passBytes / (4 * 2 ** 20) + 8, `${tracker.log.syncs} commits`);
});

test("a power cut during a sequential pass marks at most 4 MiB too much", () => {
  const tracker = new Tracker();
  for (let block = 0; block < 1000; block++) {
    tracker.write(0, block);
    tracker.settle();
    const found = tracker.restored();
    let marked = 0;
    while (marked < BLOCK_COUNT && found.isMarked(marked)) marked++;
    assert.ok(marked > block && marked <= block + 1 + 64, `${marked} at block ${block}`);
  }
});

test("numbers and generation continue through more takes than a generation has numbers", () => {
  const tracker = new Tracker();
  for (let take = 1; take <= 600; take++) {
    tracker.write(0, take);
    tracker.settle();
    tracker.take();
    const [found, real] = [tracker.restored().info(), tracker.cbt.info()];
    assert.is(found.changesNumber, real.changesNumber);
    assert.equal(found.generation, real.generation);
  }
  assert.is.not(Buffer.compare(tracker.cbt.info().generation, ID), 0);
});

test("a map that lost marks is not trusted after a take or a power cut", () => {
  const tracker = new Tracker();
  tracker.cbt.corrupt();
  tracker.take();
  const [found, real] = [tracker.restored().info(), tracker.cbt.info()];
  assert.equal(found.generation, real.generation);
  assert.is.not(Buffer.compare(found.generation, ID), 0);
});

test("a commit of an area syncs the stores that it refers to, and no others", () => {
  const kernel = new FakeReactor(new Dice(1));
  const stores = [0, 1, 2].map(() => kernel.makeFile(0));
  const log = kernel.makeFile(LOG_SECTORS * 512);
  const place = { fd: log.fd, logOffsetBytes: 0, logBytes: LOG_SECTORS * 512, usedSectors: 0 };
  let copied = 0;
  const journal = new AreaJournal({
    reactor: kernel.asReactor(),
    setup: { ...place, id: [...ID], nextSequence: 1, nextCommit: 1 },
    ticker: { start: () => undefined } as never,
    syncFds: stores.map(({ fd }) => fd),
    copiesMax: DEPTH,
    runsMax: DEPTH,
    onCopied: () => copied++,
    onWritten: () => undefined,
    onFault: (errno) => assert.unreachable(`errno ${errno}`),
    onLow: () => undefined,
  });
  const save = (inStores: number[]): number => {
    const before = kernel.submitted;
    for (const [copy, store] of inStores.entries()) {
      journal.copied(copy, copy, makeSlot(store, copy), 0, 1);
    }
    while (!kernel.isIdle) kernel.step();
    return kernel.submitted - before;
  };
  assert.is(save([1]), OPERATIONS_PER_COMMIT + 1);
  assert.is(save([1, 2, 1, 1]), OPERATIONS_PER_COMMIT + 2);
  assert.equal(
    stores.map(({ syncs }) => syncs),
    [0, 2, 1],
  );
  assert.is(copied, 5);
  journal.drop();
});

test.run();
