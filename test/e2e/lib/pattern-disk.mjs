/** A tracked device full of self-describing sectors, and its image. */
import { alignedBuffer, DeviceFile } from "./device-file.mjs";
import { SECTOR_BYTES, SectorPattern, sequenceAt } from "./sector-pattern.mjs";

const PIECE_BYTES = 2 ** 20;
const FAULTS_SHOWN = 5;

export class PatternDisk {
  /** The path of the original. */
  device;
  sizeBytes;
  pattern;
  #t;
  #file;
  #path;
  #piece = alignedBuffer(PIECE_BYTES);

  constructor(t, { device, path, sizeBytes, pattern, file }) {
    this.#t = t;
    this.device = device;
    this.#path = path;
    this.sizeBytes = sizeBytes;
    this.pattern = pattern;
    this.#file = file;
  }

  /**
   * Opens a front for writing patterns.
   *
   * @param {{device: string, path: string, sizeBytes: number, random: object, number?: number,
   *   dsync?: boolean}} options
   */
  static async open(t, { random, number = 0, dsync = false, ...options }) {
    const file = await DeviceFile.open(t, options.path, { dsync });
    return new PatternDisk(t, { ...options, file, pattern: new SectorPattern(random, number) });
  }

  /** The image of this disk: the same sectors on another device. */
  async image(path) {
    const file = await DeviceFile.open(this.#t, path);
    const { device, sizeBytes, pattern } = this;
    return new PatternDisk(this.#t, { device, path, sizeBytes, pattern, file });
  }

  get sectors() {
    return this.sizeBytes / SECTOR_BYTES;
  }

  /** Writes the sectors as those of the round. */
  async write(firstSector, count, sequence) {
    for (let done = 0; done < count; ) {
      const part = this.#piece.subarray(0, Math.min(PIECE_BYTES, (count - done) * SECTOR_BYTES));
      this.pattern.fill(part, firstSector + done, sequence);
      await this.#file.write(part, (firstSector + done) * SECTOR_BYTES);
      done += part.length / SECTOR_BYTES;
    }
  }

  fill(sequence) {
    return this.write(0, this.sectors, sequence);
  }

  /** Writes bytes unchanged, as a foreign write. */
  async writeBytes(firstSector, bytes) {
    const part = this.#piece.subarray(0, bytes.length);
    bytes.copy(part);
    await this.#file.write(part, firstSector * SECTOR_BYTES);
  }

  /** All faults of a part of the disk, of which nothing may be newer than the round. */
  async faults(newestSequence, firstSector = 0, count = this.sectors - firstSector) {
    const faults = [];
    await this.#read(firstSector, count, (part, first) => {
      faults.push(...this.pattern.faults(part, first, newestSequence));
    });
    return faults;
  }

  /** Sequence numbers of a part of the disk; fails when it is not whole. */
  async sequences(firstSector, count) {
    const found = [];
    await this.#read(firstSector, count, (part, first) => {
      this.#assertNone(this.pattern.faults(part, first, 2 ** 32 - 1));
      for (let at = 0; at < part.length; at += SECTOR_BYTES) found.push(sequenceAt(part, at));
    });
    return found;
  }

  /** Fails unless the whole disk is correct and nothing on it is newer than the round. */
  async assertIntact(newestSequence) {
    const faults = await this.faults(newestSequence);
    if (faults.length > 0) this.#assertNone(faults, await this.#whatDiffSays(faults));
  }

  #assertNone(faults, more = "") {
    if (faults.length === 0) return;
    const shown = faults
      .slice(0, FAULTS_SHOWN)
      .map(({ sector, kind, found }) => `sector ${sector}: ${kind} (${found})`);
    throw new Error(`${this.#path}: ${faults.length} bad sectors: ${shown.join(", ")}${more}`);
  }

  /** Whether an incremental backup would at least detect it. */
  async #whatDiffSays(faults) {
    const { ranges } = await this.#t.client.diff(this.device, 0);
    const flagged = faults
      .map(({ sector }) => sector * SECTOR_BYTES)
      .filter((at) =>
        ranges.some(({ offset_bytes: from, length_bytes: n }) => at >= from && at < from + n),
      );
    return `; diff lists ${flagged.length} of them as changed`;
  }

  async #read(firstSector, count, visit) {
    for (let done = 0; done < count; ) {
      const part = this.#piece.subarray(0, Math.min(PIECE_BYTES, (count - done) * SECTOR_BYTES));
      await this.#file.readInto(part, (firstSector + done) * SECTOR_BYTES);
      visit(part, firstSector + done);
      done += part.length / SECTOR_BYTES;
    }
  }

  close() {
    return this.#file.close();
  }
}
