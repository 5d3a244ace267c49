/**
 * Nanoseconds that the engine itself needs for a request: no I/O, every question answered at once in
 * batches of 32.   node --expose-gc packages/engine/examples/bench.mjs
 */
import { CbtMap, DiffArea, DiffAreaMap, RequestOp, TrackerEngine } from "@blksnap/engine";

const BATCH = 32;
const GIB = 2 ** 30;
const capacityBytes = 64 * GIB;
const geometry = { capacityBytes, logicalBlockBytes: 512, chunkShift: 18, blockShift: 12 };

/** A host that records requests and answers on demand. */
class BatchHost {
  originals = new Int32Array(BATCH);
  originalCount = 0;
  copies = new Int32Array(BATCH);
  copyCount = 0;
  runs = new Int32Array(BATCH);
  runCount = 0;
  completed = 0;
  nextSlot = 0;

  constructor() {
    const cbt = CbtMap.create(new ArrayBuffer(CbtMap.byteLength(capacityBytes, 16)), {
      capacityBytes,
      blockShift: 16,
      generation: new Uint8Array(16),
    });
    this.engine = new TrackerEngine(geometry, this, {
      frontDepth: BATCH,
      imageDepth: BATCH,
      copyWindowBytes: 64 * 1024,
      copiesMax: BATCH,
      runsMax: BATCH,
      cbt,
    });
  }

  take() {
    const buffer = new ArrayBuffer(DiffAreaMap.byteLength(geometry));
    this.area = new DiffArea(DiffAreaMap.create(buffer, geometry));
    this.area.grantSlots(0, 2 ** 20);
    this.engine.attachArea(this.area);
    this.engine.hold();
    this.engine.switchAndRelease();
  }

  answer() {
    const { engine } = this;
    for (let index = 0; index < this.copyCount; index++)
      engine.onCopyDone(this.copies[index], 0, 0);
    this.copyCount = 0;
    for (let index = 0; index < this.runCount; index++) {
      engine.onRunDone(this.runs[index], engine.runs.lengthBytes[this.runs[index]]);
    }
    this.runCount = 0;
    for (let index = 0; index < this.originalCount; index++) {
      engine.onOriginalDone(this.originals[index], 4096);
    }
    this.originalCount = 0;
  }

  submitOriginal(tag) {
    this.originals[this.originalCount++] = tag;
  }
  submitCopy(copy) {
    this.copies[this.copyCount++] = copy;
  }
  submitRun(run) {
    this.runs[this.runCount++] = run;
  }
  completeFront() {
    this.completed++;
  }
  completeImage() {
    this.completed++;
  }
  requestSlots() {}
  freeSlot() {}
  onWritesBlocked() {}
  onDrained() {}
  onAreaFault() {}
  onCopyLate() {}
  onRunLate() {}
  onStoreHung() {}
  onStoreAnswered() {}
  onAreaClosed() {}
}

function frontWrites(host, count, firstBlock, stepBlocks) {
  const { front } = host.engine;
  for (let done = 0; done < count; done += BATCH) {
    for (let tag = 0; tag < BATCH; tag++) {
      front.op[tag] = RequestOp.WRITE;
      front.offsetBytes[tag] = (firstBlock + (done + tag) * stepBlocks) * 4096;
      front.lengthBytes[tag] = 4096;
      host.engine.submitFront(tag);
    }
    host.answer();
  }
}

function imageReads(host, count, firstBlock) {
  const { image } = host.engine;
  for (let done = 0; done < count; done += BATCH) {
    for (let tag = 0; tag < BATCH; tag++) {
      image.op[tag] = RequestOp.READ;
      image.offsetBytes[tag] = (firstBlock + done + tag) * 4096;
      image.lengthBytes[tag] = 4096;
      host.engine.submitImage(tag);
    }
    host.answer();
  }
}

function measure(name, count, work) {
  globalThis.gc?.();
  const begin = process.hrtime.bigint();
  work();
  const ns = Number(process.hrtime.bigint() - begin) / count;
  console.log(`${name.padEnd(44)} ${ns.toFixed(0).padStart(5)} ns`);
}

const COUNT = Number(process.env.BENCH_COUNT ?? 2 ** 21);
const warm = new BatchHost();
frontWrites(warm, COUNT / 4, 0, 1);
warm.take();
frontWrites(warm, COUNT / 4, 0, 1);
imageReads(warm, COUNT / 4, 0);

const host = new BatchHost();
measure("write, no snapshot", COUNT, () => frontWrites(host, COUNT, 2 ** 20, 1));
host.take();
measure("first write of a block, with its copy", COUNT, () => frontWrites(host, COUNT, 2 ** 20, 1));
measure("write to saved blocks", COUNT, () => frontWrites(host, COUNT, 2 ** 20, 1));
measure("first write, each to another chunk", 2 ** 17, () => frontWrites(host, 2 ** 17, 5, 128));
measure("image read of the original", COUNT, () => imageReads(host, COUNT, 2 ** 23));
measure("image read of slots", COUNT, () => imageReads(host, COUNT, 2 ** 20));
