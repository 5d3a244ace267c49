/**
 * A random history of writes, discards, zeroings, marks and takes of one device. The ranges of diff are checked
 * against a model of each sector, and by updating an old copy.
 */
import * as assert from "uvu/assert";
import { run } from "./command.mjs";
import { alignedBuffer, DeviceFile, firstDifference, readDevice } from "./device-file.mjs";
import { takeSnapshot } from "./snapshots.mjs";
import { until } from "./wait.mjs";

const SECTOR_BYTES = 512;
/** Blocks in which old data is saved, and discards are kept back. */
const COPY_SECTORS = 8;
const LENGTHS = [1, 1, 2, 8, 8, 16, 100, 128, 129, 300, 600];

export class ChangeHistory {
  #t;
  #device;
  #front;
  #file;
  #random;
  #sizeBytes;
  #blockSectors;
  /** Number in which each sector last changed: now, and at the last take. */
  #changed;
  #frozen;
  /** Blocks that nothing but a discard of all of them has touched last: now, and at the last take. */
  #discarded;
  #frozenDiscarded;
  /** By copy block: saved for the snapshot that is held, and discarded since and not written. */
  #saved;
  #kept;
  #isHeld = false;
  #number = 1;
  /** What the image of each take held. */
  #copies;

  constructor(t, file, { device, front, sizeBytes, blockBytes, random }) {
    this.#t = t;
    this.#file = file;
    this.#device = device;
    this.#front = front;
    this.#random = random;
    this.#sizeBytes = sizeBytes;
    this.#blockSectors = blockBytes / SECTOR_BYTES;
    this.#changed = new Uint8Array(sizeBytes / SECTOR_BYTES);
    this.#discarded = new Uint8Array(Math.ceil(this.#changed.length / this.#blockSectors));
    this.#saved = new Uint8Array(Math.ceil(this.#changed.length / COPY_SECTORS));
    this.#kept = new Uint8Array(this.#saved.length);
    this.#copies = [Buffer.alloc(sizeBytes)];
  }

  /**
   * @param {{device: string, front: string, sizeBytes: number, blockBytes: number, random: object}}
   * options a device of zeroes; size of a block of its CBT map
   */
  static async begin(t, options) {
    return new ChangeHistory(t, await DeviceFile.open(t, options.front), options);
  }

  #range() {
    const sectors = this.#changed.length;
    const count = this.#random.pick(LENGTHS);
    const first = this.#random.once(8) ? sectors - count : this.#random.below(sectors - count);
    return { first, count };
  }

  #touch(table, { first, count }, number) {
    for (let sector = first; sector < first + count; sector++) {
      table[sector] = Math.max(table[sector], number);
    }
  }

  #blocksOf({ first, count }) {
    const from = Math.floor(first / this.#blockSectors);
    return { from, end: Math.ceil((first + count) / this.#blockSectors) };
  }

  #changedAt(range) {
    this.#touch(this.#changed, range, this.#number);
    const { from, end } = this.#blocksOf(range);
    this.#discarded.fill(0, from, end);
    this.#kept.fill(0, ...copyBlocksOf(range));
    if (this.#isHeld) this.#saved.fill(1, ...copyBlocksOf(range));
  }

  async #write(file, { first, count }) {
    const buffer = alignedBuffer(count * SECTOR_BYTES);
    await file.write(this.#random.fill(buffer), first * SECTOR_BYTES);
  }

  async #writeFront() {
    const range = this.#range();
    await this.#write(this.#file, range);
    this.#changedAt(range);
  }

  #blkdiscard({ first, count }, ...options) {
    const place = ["-o", String(first * SECTOR_BYTES), "-l", String(count * SECTOR_BYTES)];
    return run(["blkdiscard", ...options, ...place, this.#front]);
  }

  /** Some whole blocks and, mostly, parts of those beside them. */
  async #discard() {
    const { first, count } = this.#range();
    const range = { first, count: Math.min(count * 2, this.#changed.length - first) };
    await this.#blkdiscard(range);
    if (this.#isHeld && this.#saved.subarray(...copyBlocksOf(range)).includes(0)) {
      this.#keep(range);
    } else this.#discardedAt(range);
  }

  #keep({ first, count }) {
    const end = first + count;
    const isAtEnd = end === this.#changed.length;
    const last = isAtEnd ? this.#kept.length : Math.floor(end / COPY_SECTORS);
    this.#kept.fill(1, Math.ceil(first / COPY_SECTORS), last);
  }

  /** Held discards are sent to the original. */
  async #sent() {
    await until("no discard is kept", async () => {
      const { trackers } = await this.#t.client.status();
      return trackers.find(({ device }) => device === this.#device).kept_discard_bytes === 0;
    });
    for (let block = 0; block < this.#kept.length; block++) {
      if (this.#kept[block] === 0) continue;
      let end = block;
      while (this.#kept[end] === 1) end++;
      const first = block * COPY_SECTORS;
      const count = Math.min(end * COPY_SECTORS, this.#changed.length) - first;
      this.#discardedAt({ first, count });
    }
  }

  #discardedAt(range) {
    this.#changedAt(range);
    const { from, end } = this.#blocksOf(range);
    for (let block = from; block < end; block++) {
      const start = block * this.#blockSectors;
      const stop = Math.min(start + this.#blockSectors, this.#changed.length);
      const whole = range.first <= start && stop <= range.first + range.count;
      this.#discarded[block] = whole ? 1 : 0;
    }
  }

  async #zero() {
    const range = this.#range();
    await this.#blkdiscard(range, "-z");
    this.#changedAt(range);
  }

  /** Marked by hand, or by a write to the image: changed in the current map and in the next. */
  #marked(range) {
    this.#changedAt(range);
    this.#touch(this.#frozen, range, this.#number - 1);
    const { from, end } = this.#blocksOf(range);
    this.#frozenDiscarded.fill(0, from, end);
  }

  async #mark() {
    const range = this.#range();
    const [offset_bytes, length_bytes] = [range.first * SECTOR_BYTES, range.count * SECTOR_BYTES];
    await this.#t.client.markDirty(this.#device, [{ offset_bytes, length_bytes }]);
    this.#marked(range);
  }

  async #writeImage(image) {
    const range = this.#range();
    await this.#write(image, range);
    this.#marked(range);
  }

  async #change(steps) {
    for (let step = 0; step < steps; step++) {
      const choice = this.#random.below(8);
      if (choice === 0) await this.#discard();
      else if (choice === 1) await this.#zero();
      else await this.#writeFront();
    }
  }

  /** Changes, a take, all diffs, and changes under the snapshot, with the diffs again. */
  async round(steps) {
    await this.#change(steps);
    const { images, destroy } = await takeSnapshot(this.#t, [this.#device]);
    this.#number++;
    this.#frozen = Uint8Array.from(this.#changed);
    this.#frozenDiscarded = Uint8Array.from(this.#discarded);
    this.#copies.push(await readDevice(this.#t, images[0], this.#sizeBytes));
    await this.#assertDiffs({ withCopies: true });
    this.#isHeld = true;
    this.#saved.fill(0);
    await this.#change(Math.ceil(steps / 2));
    const image = await DeviceFile.open(this.#t, images[0]);
    await this.#writeImage(image);
    await image.close();
    await this.#mark();
    await this.#assertDiffs({ withCopies: false });
    await destroy();
    this.#isHeld = false;
    await this.#sent();
  }

  async #assertDiffs({ withCopies }) {
    for (let since = 0; since < this.#number; since++) {
      const diff = await this.#t.client.diff(this.#device, since);
      assert.is(diff.block_bytes, this.#blockSectors * SECTOR_BYTES);
      this.#assertCovers(diff.ranges, since);
      for (const range of diff.ranges) this.#assertTight(range, since);
      if (withCopies) this.#assertBackup(diff.ranges, since);
    }
  }

  /** No sector that changed is missing. */
  #assertCovers(ranges, since) {
    const listed = new Uint8Array(this.#frozen.length);
    for (const range of ranges) {
      const { from, end } = sectorsOf(range);
      listed.fill(1, from, end);
    }
    const missed = this.#frozen.findIndex((number, sector) => number > since && !listed[sector]);
    assert.is(missed, -1, `diff since ${since} misses sector ${missed}`);
  }

  /** Each block of a range has a change, so a range is less than a block too large at each end. */
  #assertTight({ kind, ...range }, since) {
    const { from, end } = sectorsOf(range);
    for (let start = from; start < end; start += this.#blockSectors) {
      const block = start / this.#blockSectors;
      const sectors = this.#frozen.subarray(start, start + this.#blockSectors);
      assert.ok(
        sectors.some((number) => number > since),
        `diff since ${since} lists sector ${start}, and nothing changed there`,
      );
      const expected = this.#frozenDiscarded[block] ? "discarded" : "changed";
      assert.is(kind, expected, `the block at sector ${start}, since ${since}`);
    }
  }

  /** Like a backup program: an updated old copy equals the new image. */
  #assertBackup(ranges, since) {
    const now = this.#copies.at(-1);
    const copy = Buffer.from(this.#copies[since]);
    for (const { offset_bytes: start, length_bytes: length, kind } of ranges) {
      const end = start + length;
      if (kind === "discarded") copy.fill(0, start, end);
      else now.copy(copy, start, start, end);
    }
    const at = firstDifference(copy, now);
    assert.is(at, -1, `a copy of ${since} brought up to date differs at byte ${at}`);
  }

  close() {
    return this.#file.close();
  }
}

/** First sector of a range of a diff, and the one after its last. */
function sectorsOf({ offset_bytes: offset, length_bytes: length }) {
  return { from: offset / SECTOR_BYTES, end: (offset + length) / SECTOR_BYTES };
}

/** First copy block that the range touches, and the one after the last. */
function copyBlocksOf({ first, count }) {
  return [Math.floor(first / COPY_SECTORS), Math.ceil((first + count) / COPY_SECTORS)];
}
