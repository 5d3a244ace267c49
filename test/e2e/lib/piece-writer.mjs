/** Writes that may fail, against a model of what the device then holds. */
import { alignedBuffer, DeviceFile } from "./device-file.mjs";

const BLOCK_BYTES = 4096;
const BLOCKS_MAX = 4;

/**
 * Several writers, each with its own part of the device. A failed write has changed nothing: the disks under test
 * fail before they write.
 */
export class PieceWriter {
  errors = 0;
  writes = 0;
  #file;
  #model;
  #random;
  #lanes;
  #stopped = false;
  #running = [];
  #ended;

  static async start(t, path, model, random, lanes = 4) {
    const writer = new PieceWriter();
    writer.#file = await DeviceFile.open(t, path);
    writer.#model = model;
    writer.#random = random;
    writer.#lanes = lanes;
    t.defer(() => writer.stop());
    writer.#running = Array.from({ length: lanes }, (_, lane) => writer.#run(lane));
    // Reported by stop(); a writer that fails must not end the process before.
    for (const lane of writer.#running) lane.catch(() => writer.#giveUp());
    return writer;
  }

  async #run(lane) {
    const laneBytes = this.#model.length / this.#lanes;
    const memory = alignedBuffer(BLOCKS_MAX * BLOCK_BYTES);
    while (!this.#stopped) {
      const length = (1 + this.#random.below(BLOCKS_MAX)) * BLOCK_BYTES;
      const blocks = (laneBytes - length) / BLOCK_BYTES + 1;
      const offset = lane * laneBytes + this.#random.below(blocks) * BLOCK_BYTES;
      const buffer = this.#random.fill(memory.subarray(0, length));
      await this.#write(buffer, offset);
    }
  }

  async #write(buffer, offset) {
    this.writes++;
    try {
      await this.#file.write(buffer, offset);
      buffer.copy(this.#model, offset);
    } catch (error) {
      if (error.code !== "EIO") throw error;
      this.errors++;
    }
  }

  /** Ends the waits for more writes after a writer has failed. */
  #giveUp() {
    this.#stopped = true;
  }

  /** Ends when so many more writes have been tried. */
  async more(count) {
    const until = this.writes + count;
    while (this.writes < until && !this.#stopped) await new Promise((done) => setTimeout(done, 20));
  }

  /** Stops the writers, once. @throws the error that ended one of them before */
  stop() {
    this.#stopped = true;
    this.#ended ??= Promise.all(this.#running).then(() => this.#file.close());
    return this.#ended;
  }
}
