/**
 * A snapshot of a 1 MiB device that is just an array: take it, overwrite the device, read the image.
 *   node packages/engine/examples/first-snapshot.mjs
 */
import {
  CbtMap,
  CopyFault,
  DiffArea,
  DiffAreaMap,
  RequestOp,
  RunKind,
  TrackerEngine,
} from "@blksnap/engine";

const geometry = { capacityBytes: 2 ** 20, logicalBlockBytes: 512, chunkShift: 18, blockShift: 12 };
const chunkBytes = 2 ** geometry.chunkShift;
const original = Buffer.alloc(geometry.capacityBytes, "old ");
const store = Buffer.alloc(geometry.capacityBytes);
const windows = [Buffer.alloc(64 * 1024)];
const frontData = Buffer.alloc(8192, "NEW ");
const imageData = Buffer.alloc(8192);

// A real host puts these questions on a ring. This one does the I/O at once, but answers later.
const answers = [];
const host = {
  submitOriginal(tag) {
    const { offsetBytes, lengthBytes } = engine.front;
    frontData.copy(original, offsetBytes[tag]);
    console.log(`original: write ${lengthBytes[tag]} bytes at ${offsetBytes[tag]}`);
    answers.push(() => engine.onOriginalDone(tag, lengthBytes[tag]));
  },
  submitCopy(id) {
    const { chunk, slot, blockStart, lengthBytes, bufferTag, bufferOffsetBytes } = engine.copies;
    const inChunk = blockStart[id] << geometry.blockShift;
    const from = chunk[id] * chunkBytes + inChunk;
    const window = windows[bufferTag[id]].subarray(bufferOffsetBytes[id]);
    original.copy(window, 0, from, from + lengthBytes[id]);
    window.copy(store, slot[id] * chunkBytes + inChunk, 0, lengthBytes[id]);
    console.log(`copy: ${lengthBytes[id]} bytes at ${from} to slot ${slot[id]}`);
    answers.push(() => engine.onCopyDone(id, 0, CopyFault.NONE));
  },
  submitRun(id) {
    const { kind, chunk, slot, offsetInChunkBytes, lengthBytes, bufferOffsetBytes } = engine.runs;
    const fromSlot = kind[id] === RunKind.READ_SLOT;
    const at = (fromSlot ? slot[id] : chunk[id]) * chunkBytes + offsetInChunkBytes[id];
    const source = fromSlot ? store : original;
    source.copy(imageData, bufferOffsetBytes[id], at, at + lengthBytes[id]);
    console.log(`image: ${lengthBytes[id]} bytes from the ${fromSlot ? "slot" : "original"}`);
    answers.push(() => engine.onRunDone(id, lengthBytes[id]));
  },
  requestSlots(wanted) {
    answers.push(() => area.grantSlots(4, wanted));
  },
  completeFront: (tag, result) => console.log(`front ${tag} done: ${result}`),
  completeImage: (tag, result) => console.log(`image ${tag} done: ${result}`),
  freeSlot() {},
  onWritesBlocked() {},
  onDrained: () => console.log("drained"),
  onAreaFault: (errno) => console.log(`blocks lost, errno ${errno}`),
  onCopyLate() {},
  onRunLate() {},
  onStoreHung: (store) => console.log(`store ${store} hangs`),
  onStoreAnswered: (store) => console.log(`store ${store} answers`),
  onAreaClosed: () => console.log("area closed"),
};
function answerAll() {
  while (answers.length > 0) answers.shift()();
}

const cbt = CbtMap.create(new ArrayBuffer(CbtMap.byteLength(geometry.capacityBytes, 16)), {
  capacityBytes: geometry.capacityBytes,
  blockShift: 16,
  generation: crypto.getRandomValues(new Uint8Array(16)),
});
const engine = new TrackerEngine(geometry, host, {
  frontDepth: 1,
  imageDepth: 1,
  copyWindowBytes: 64 * 1024,
  copiesMax: 4,
  runsMax: 4,
  cbt,
});

// The take.
const map = DiffAreaMap.create(new ArrayBuffer(DiffAreaMap.byteLength(geometry)), geometry);
const area = new DiffArea(map, { lowWaterSlots: 0 });
area.grantSlots(0, 4);
engine.attachArea(area);
engine.hold();
engine.switchAndRelease();

// A write to the original, then a read of the same place and of what follows it from the image.
engine.front.op[0] = RequestOp.WRITE;
engine.front.offsetBytes[0] = 4096;
engine.front.lengthBytes[0] = 4096;
engine.submitFront(0);
answerAll();
engine.image.op[0] = RequestOp.READ;
engine.image.offsetBytes[0] = 4096;
engine.image.lengthBytes[0] = 8192;
engine.submitImage(0);
answerAll();
console.log(`original: ${original.toString("latin1", 4096, 4099)}`);
console.log(`image: ${imageData.toString("latin1", 0, 3)}`);
engine.dropArea();
