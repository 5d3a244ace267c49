/** The shape of a simulation's devices and requests. */
import { OverflowPolicy, RequestOp } from "@blksnap/engine";
import type { Random } from "./random.js";
import type { SimDevice } from "./sim-device.js";
import type { SimShape } from "./sim-world.js";

export function shapeOf(
  random: Random,
): Omit<SimShape, "capacitySectors" | "isSparse" | "hasPlaces"> & { chunks: number } {
  const blockShift = random.pick([9, 12, 12, 12, 13]);
  const chunkShift = blockShift + random.pick([0, 2, 3, 3, 5, 6]);
  return {
    blockShift,
    chunkShift,
    chunks: random.between(3, 14),
    cbtBlockShift: random.between(12, 16),
    copiesMax: random.pick([1, 2, 3, 16]),
    runsMax: random.pick([1, 2, 3, 16]),
    windowBlocks: random.pick([1, 2, 5, 20]),
    placeBlocks: 3,
    writeBlocks: 3,
    sequenceEvery: 0,
    isCold: false,
    overflow: random.pick(Object.values(OverflowPolicy)),
  };
}

/** The same for writes in sequence, with chunks and windows that have room for several of them. */
export function withSequences<Shape extends ReturnType<typeof shapeOf>>(shape: Shape): Shape {
  const chunkShift = Math.max(shape.chunkShift, shape.blockShift + 4);
  return { ...shape, chunkShift, sequenceEvery: 3, windowBlocks: 20, copiesMax: 16 };
}

/** The same with mostly first writes, whose copies can go behind them. */
export function withFirstWrites<Shape extends ReturnType<typeof shapeOf>>(shape: Shape): Shape {
  const chunkShift = Math.max(shape.chunkShift, shape.blockShift + 3);
  const { BREAK_SNAPSHOT: overflow } = OverflowPolicy;
  return { ...shape, chunkShift, overflow, windowBlocks: 5, copiesMax: 16, isCold: true };
}

/** The same with writes and copies as long as the longest places. */
export function withLongCopies<Shape extends ReturnType<typeof shapeOf>>(shape: Shape): Shape {
  const chunkShift = Math.max(shape.chunkShift, shape.blockShift + 5);
  return { ...shape, chunkShift, windowBlocks: 20, placeBlocks: 16, writeBlocks: 17 };
}

/** The same with so many chunks that maps have several slices. */
export function withSlices<Shape extends ReturnType<typeof shapeOf>>(
  shape: Shape,
  random: Random,
): Shape {
  const chunks = random.between(11_000, 33_000);
  return { ...shape, blockShift: 9, chunkShift: 9, isCold: true, chunks };
}

/** A range of sectors: mostly short, mostly in a small hot part, often cut across blocks. */
export function rangeOf(random: Random, device: SimDevice, op: number): [number, number] {
  const { length } = device.disk;
  const isCold = device.shape.isCold && random.oneIn(2);
  const hot = isCold
    ? length
    : random.below(100) < 70
      ? Math.min(length, device.chunkSectors * 3)
      : length;
  const atEnd = random.oneIn(8);
  let first = atEnd ? length - 1 - random.below(Math.min(hot, length)) : random.below(hot);
  const long = op === RequestOp.WRITE || op === RequestOp.READ ? 12 : 2;
  let count = random.between(1, device.blockSectors * device.shape.writeBlocks);
  if (random.oneIn(long)) count = random.between(1, device.chunkSectors * 3);
  if (random.oneIn(2)) {
    first -= first % device.blockSectors;
    count = Math.ceil(count / device.blockSectors) * device.blockSectors;
  }
  return [first, Math.min(count, length - first)];
}
