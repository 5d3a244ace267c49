/** A medium that does not answer a commit: the commit fails in time, and nothing is freed too early. */

import { makeSlot } from "@blksnap/diff-storage";
import { Dice } from "@blksnap/testing";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { AreaJournal } from "../../../data-plane/dist/area-journal.js";
import { CbtJournal } from "../../../data-plane/dist/cbt-journal.js";
import { COMMIT_LATE_TICKS } from "../../../data-plane/dist/io-ticker.js";
import { FakeReactor } from "./medium.js";

const test = suite("late-journal");

const BLOCK_BYTES = 65536;
const DEPTH = 4;
const EIO = 5;
const EAGAIN = 11;
const ENOMEM = 12;
const ETIMEDOUT = 110;
const ECANCELED = 125;

class Tracker {
  readonly kernel: FakeReactor = new FakeReactor(new Dice(1));
  readonly journal: CbtJournal;
  readonly admitted: number[] = [];
  readonly faults: number[] = [];
  starts = 0;
  readonly #offsets = new Float64Array(DEPTH);
  readonly #lengths = new Float64Array(DEPTH).fill(4096);

  constructor(logSectors = 64) {
    const { fd } = this.kernel.makeFile(logSectors * 512);
    this.journal = new CbtJournal({
      reactor: this.kernel.asReactor(),
      setup: {
        fd,
        logOffsetBytes: 0,
        logBytes: logSectors * 512,
        usedSectors: 0,
        id: Array.from({ length: 16 }, (_, i) => i),
        nextSequence: 1,
        nextCommit: 1,
      },
      ticker: { start: () => this.starts++ } as never,
      blockShift: 16,
      blockCount: 1024,
      requestsMax: DEPTH,
      isMarked: () => false,
      onAdmitted: (tag) => this.admitted.push(tag),
      onFault: (errno) => this.faults.push(errno),
      onLow: () => undefined,
    });
  }

  write(tag: number, block: number): void {
    this.#offsets[tag] = block * BLOCK_BYTES;
    if (this.journal.admit(this.#offsets, this.#lengths, tag)) this.admitted.push(tag);
  }

  /** One step of the kernel: the batch ends, and the commit is in flight. */
  begin(): void {
    this.kernel.step();
  }

  ticks(count: number): void {
    for (let tick = 0; tick < count; tick++) this.journal.io.tick();
  }
}

test("a commit that is not answered fails after its bound, once", () => {
  const tracker = new Tracker();
  tracker.write(0, 1);
  tracker.begin();
  assert.is(tracker.starts, 1);
  tracker.ticks(COMMIT_LATE_TICKS);
  assert.equal(tracker.faults, []);
  assert.is(tracker.journal.io.tick(), false);
  tracker.ticks(20);
  assert.equal(tracker.faults, [ETIMEDOUT]);
  assert.equal(tracker.admitted, []);
  tracker.write(1, 2);
  tracker.journal.drop();
  assert.equal(tracker.admitted, [0, 1]);
  tracker.write(2, 3);
  assert.equal(tracker.admitted, [0, 1, 2]);
});

test("files and memory stay until the medium has answered, and its answer has no other effect", () => {
  const tracker = new Tracker();
  tracker.write(0, 1);
  tracker.begin();
  tracker.ticks(COMMIT_LATE_TICKS + 1);
  tracker.journal.drop();
  let closed = 0;
  tracker.journal.io.whenClosed(() => closed++);
  assert.is(tracker.kernel.filesOpen, 1);
  assert.is(closed, 0);
  while (!tracker.kernel.isIdle) tracker.kernel.step();
  assert.is(tracker.kernel.filesOpen, 0);
  assert.is(closed, 1);
  assert.equal(tracker.admitted, [0]);
});

test("an answer before the bound changes nothing", () => {
  const tracker = new Tracker();
  for (let block = 0; block < 50; block++) {
    tracker.write(0, block * 3);
    tracker.begin();
    tracker.ticks(COMMIT_LATE_TICKS);
    while (!tracker.kernel.isIdle) tracker.kernel.step();
    assert.is(tracker.admitted.length, block + 1);
  }
  assert.equal(tracker.faults, []);
  assert.is(tracker.journal.io.tick(), false);
});

test("a full log that is never extended fails, too", () => {
  const tracker = new Tracker(1);
  for (let block = 0; block < 3; block++) {
    tracker.write(block, block * 300);
    while (!tracker.kernel.isIdle) tracker.kernel.step();
  }
  assert.ok(tracker.admitted.length < 3);
  tracker.ticks(COMMIT_LATE_TICKS + 1);
  assert.equal(tracker.faults, [ETIMEDOUT]);
});

test("a caller that waits for the end of a commit continues if its journal ends before", () => {
  const tracker = new Tracker();
  tracker.write(0, 1);
  tracker.begin();
  const firstSequences: (number | null)[] = [];
  const { fd } = tracker.kernel.makeFile(64 * 512);
  const place = { fd, logOffsetBytes: 0, logBytes: 64 * 512, usedSectors: 0 };
  tracker.journal.io.whenIdle(() =>
    tracker.journal.mirror(place, (firstSequence) => firstSequences.push(firstSequence)),
  );
  tracker.journal.drop();
  assert.equal(firstSequences, [null]);
  settle(tracker);
  assert.is(tracker.kernel.filesOpen, 0);
});

test("a request with a successor that cannot be opened is answered", () => {
  const tracker = new Tracker();
  tracker.kernel.addFile = () => {
    throw new Error("a reactor has no room for more registered files");
  };
  const place = { fd: 99, logOffsetBytes: 0, logBytes: 64 * 512, usedSectors: 0 };
  const answers: (number | null)[] = [];
  assert.throws(() => tracker.journal.mirror(place, (first) => answers.push(first)), "no room");
  assert.equal(answers, [null]);
  tracker.write(0, 1);
  settle(tracker);
  assert.equal(tracker.admitted, [0]);
});

test("a commit waits for no other request after one whose successor cannot be opened", () => {
  const tracker = new Tracker();
  tracker.write(0, 1);
  tracker.begin();
  tracker.write(1, 300);
  tracker.journal.io.whenIdle(() => {
    throw new Error("a reactor has no room for more registered files");
  });
  while (!tracker.kernel.isIdle) {
    try {
      tracker.kernel.step();
    } catch {
      // A reactor reports it, and continues.
    }
  }
  assert.equal(tracker.admitted, [0, 1]);
});

/** Replaces the medium's answers to the next writes. */
function refuse({ kernel }: Tracker, errnos: number[]): void {
  kernel.faults = (_, isWrite) => {
    const errno = isWrite ? errnos.shift() : undefined;
    return errno === undefined ? undefined : -errno;
  };
}

function settle({ kernel }: Tracker): void {
  while (!kernel.isIdle) kernel.step();
}

for (const [what, errnos, fault] of [
  ["is submitted again", [ENOMEM, ECANCELED, EAGAIN], undefined],
  ["is no medium that fails then", [ENOMEM, EIO, EIO], EIO],
  ["is given up in the end", new Array<number>(1000).fill(ENOMEM), ENOMEM],
] as const) {
  test(`a commit that the kernel has no memory or thread for ${what}`, () => {
    const tracker = new Tracker();
    const left = [...errnos];
    refuse(tracker, left);
    tracker.write(0, 1);
    settle(tracker);
    assert.equal(tracker.faults, fault === undefined ? [] : [fault]);
    assert.equal(tracker.admitted, fault === undefined ? [0] : []);
    // A medium that fails is asked once; the kernel as often as for requests of a front.
    assert.is(errnos.length - left.length, [3, 2, 101][[undefined, EIO, ENOMEM].indexOf(fault)]);
  });
}

test("a commit that waits to be submitted again keeps its bound, and ends with its journal", () => {
  for (const isLate of [true, false]) {
    const tracker = new Tracker();
    refuse(tracker, [ENOMEM]);
    tracker.write(0, 1);
    tracker.begin();
    tracker.kernel.step();
    const { submitted } = tracker.kernel;
    tracker.ticks(isLate ? COMMIT_LATE_TICKS + 1 : COMMIT_LATE_TICKS);
    assert.equal(tracker.faults, isLate ? [ETIMEDOUT] : []);
    if (isLate) settle(tracker);
    tracker.journal.drop();
    assert.equal(tracker.admitted, [0]);
    assert.is(tracker.kernel.filesOpen, 0);
    settle(tracker);
    assert.is(tracker.kernel.submitted, submitted);
  }
});

/** The journal of an area with one store, whose commits are chains of a sync and a write. */
function areaJournal() {
  const kernel = new FakeReactor(new Dice(1));
  const [log, store] = [kernel.makeFile(64 * 512), kernel.makeFile(0)];
  const faults: number[] = [];
  const copied: number[] = [];
  const journal = new AreaJournal({
    reactor: kernel.asReactor(),
    setup: {
      fd: log.fd,
      logOffsetBytes: 0,
      logBytes: 64 * 512,
      usedSectors: 0,
      id: Array.from({ length: 16 }, (_, i) => i),
      nextSequence: 1,
      nextCommit: 1,
    },
    ticker: { start: () => undefined } as never,
    syncFds: [store.fd],
    copiesMax: 4,
    runsMax: 4,
    onCopied: (copy) => copied.push(copy),
    onWritten: () => undefined,
    onFault: (errno) => faults.push(errno),
    onLow: () => undefined,
  });
  return { kernel, store, journal, faults, copied };
}

test("a sync that failed for lack of memory counts as failed, because the next one would not report it", () => {
  const { kernel, store, journal, faults, copied } = areaJournal();
  kernel.faults = (file) => (file === store ? -ENOMEM : undefined);
  journal.copied(0, 0, makeSlot(0, 0), 0, 1);
  while (!kernel.isIdle) kernel.step();
  assert.equal(faults, [ENOMEM]);
  assert.equal(copied, [], "its data may not be there");
});

for (const [tears, told] of [
  [150, { faults: [], copied: [0] }],
  [Number.POSITIVE_INFINITY, { faults: [ENOMEM], copied: [] }],
] as const) {
  test(`a commit of which the kernel accepts only a part ${tears} times gets as many tries as others`, () => {
    const { kernel, journal, faults, copied } = areaJournal();
    kernel.tearChance = 1;
    journal.copied(0, 0, makeSlot(0, 0), 0, 1);
    while (!kernel.isIdle) {
      if (kernel.torn === tears) kernel.tearChance = 0;
      kernel.step();
    }
    assert.equal({ faults, copied }, told);
    // At once, and as often after a pause as if the kernel had no memory.
    if (tears === Number.POSITIVE_INFINITY) assert.is(kernel.torn, 201);
  });
}

test("a late mirror keeps its file until it has answered", () => {
  const tracker = new Tracker();
  const { fd } = tracker.kernel.makeFile(64 * 512);
  const place = { fd, logOffsetBytes: 0, logBytes: 64 * 512, usedSectors: 0 };
  tracker.journal.mirror(place, () => undefined);
  tracker.write(0, 1);
  tracker.begin();
  tracker.ticks(COMMIT_LATE_TICKS + 1);
  assert.is(tracker.journal.io.adopt(), false);
  // As when the journal's successor is given up.
  tracker.journal.io.dropMirror();
  assert.is(tracker.kernel.filesOpen, 2);
  tracker.journal.drop();
  assert.is(tracker.kernel.filesOpen, 2);
  while (!tracker.kernel.isIdle) tracker.kernel.step();
  assert.is(tracker.kernel.filesOpen, 0);
});

test.run();
