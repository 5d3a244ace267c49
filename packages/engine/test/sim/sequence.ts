// Writes in sequence, now and then, among random ones.
import type { Random } from "./random.js";
import type { SimDevice } from "./sim-device.js";

export class Sequence {
  private readonly device: SimDevice;
  private at = 0;
  private left = 0;

  constructor(device: SimDevice) {
    this.device = device;
  }

  /** The range of the next write: the next of the sequence, if there is one, else the random one. */
  next(random: Random, range: [number, number]): [number, number] {
    const { blockSectors, chunkSectors, disk, shape } = this.device;
    if (shape.sequenceEvery === 0) return range;
    if (this.left === 0 && random.oneIn(shape.sequenceEvery)) {
      this.left = random.between(6, 80);
      const unit = random.oneIn(2) ? blockSectors : chunkSectors;
      this.at = range[0] - (range[0] % unit);
    }
    if (this.left === 0 || random.oneIn(6)) return range;
    const first = this.at;
    // Another writer is ahead of it.
    const other = first + blockSectors * random.between(1, 6);
    if (random.oneIn(6) && other + blockSectors <= disk.length) return [other, blockSectors];
    const whole = blockSectors * (random.oneIn(8) ? random.between(1, 4) : 1);
    const count = Math.min(random.oneIn(20) ? 1 : whole, disk.length - first);
    this.at += count;
    this.left = this.at === disk.length ? 0 : this.left - 1;
    return [first, count];
  }
}
