/**
 * The whole content of a CBT map, to be stored elsewhere: header, write map, read map, one after the other.
 *
 * It is read part by part, in order. Meanwhile the owner may mark; if it switches or resets the map, read() throws.
 * A mark made meanwhile is either in the checkpoint, or has to be repeated after restore(). read[b] is stored before
 * write[b], so a reader that copies the whole write map first misses no frozen value: a mark made after write[b] was
 * copied has saved exactly that value.
 */
import { CBT_HEADER_BYTES, CbtWord } from "./cbt-layout.js";
import { EngineError } from "./errors.js";

export class CbtCheckpoint {
  readonly length: number;
  private readonly words: Int32Array;
  private readonly parts: readonly Uint8Array[];
  private readonly active: number;
  private readonly sequence: number;

  /** Only for CbtMap. */
  constructor(words: Int32Array, write: Uint8Array, read: Uint8Array) {
    this.words = words;
    this.parts = [new Uint8Array(words.buffer, 0, CBT_HEADER_BYTES), write, read];
    this.length = this.parts.reduce((sum, part) => sum + part.length, 0);
    this.active = Atomics.load(words, CbtWord.ACTIVE);
    this.sequence = Atomics.load(words, CbtWord.SEQUENCE);
  }

  /**
   * Copies bytes from `offset` on, as many as `into` has. Call it in order of offsets.
   * Throws CBT_BUSY: the map was switched or reset since the checkpoint was begun.
   */
  read(into: Uint8Array, offset: number): void {
    let partAt = 0;
    for (const part of this.parts) {
      const from = Math.max(offset - partAt, 0);
      const to = Math.min(offset + into.length - partAt, part.length);
      if (to > from) into.set(part.subarray(from, to), partAt + from - offset);
      partAt += part.length;
    }
    const { words } = this;
    // The memory of an unmapped map has no length.
    const isSame =
      words.length > 0 &&
      Atomics.load(words, CbtWord.ACTIVE) === this.active &&
      Atomics.load(words, CbtWord.SEQUENCE) === this.sequence &&
      (this.sequence & 1) === 0;
    if (!isSame) throw new EngineError("CBT_BUSY", "the CBT map was switched during a checkpoint");
  }
}
