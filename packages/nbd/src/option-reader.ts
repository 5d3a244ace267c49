/** Parses the data of an option or of its reply, which may be truncated anywhere. */
import { Limit } from "./protocol.js";

export class OptionReader {
  readonly #data: Buffer;
  #at = 0;
  /** False once something was incomplete. */
  isGood = true;

  constructor(data: Buffer) {
    this.#data = data;
  }

  /** Whether all of it was parsed, and nothing was incomplete. */
  get isWhole(): boolean {
    return this.isGood && this.#at === this.#data.length;
  }

  #has(bytes: number): boolean {
    this.isGood &&= this.#at + bytes <= this.#data.length;
    return this.isGood;
  }

  u16(): number {
    if (!this.#has(2)) return 0;
    this.#at += 2;
    return this.#data.readUInt16BE(this.#at - 2);
  }

  u32(): number {
    if (!this.#has(4)) return 0;
    this.#at += 4;
    return this.#data.readUInt32BE(this.#at - 4);
  }

  /** Its length, then its bytes. */
  text(): string {
    const length = this.u32();
    if (length > Limit.NAME_BYTES) this.isGood = false;
    if (!this.#has(length)) return "";
    this.#at += length;
    return this.#data.toString("utf8", this.#at - length, this.#at);
  }

  /** The rest, as text. */
  rest(): string {
    const text = this.#data.toString("utf8", this.#at);
    this.#at = this.#data.length;
    return text;
  }
}
