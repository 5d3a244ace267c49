/** Encodes the server's side of the handshake, in sending order. */
import type { ExportDescription } from "./exports.js";
import {
  EXPORT_NAME_PADDING_BYTES,
  GREETING_BYTES,
  HandshakeFlag,
  InfoType,
  Limit,
  NBD_MAGIC,
  OPTION_MAGIC,
  OPTION_REPLY_HEADER_BYTES,
  OPTION_REPLY_MAGIC,
  ReplyType,
} from "./protocol.js";

export class HandshakeReplies {
  #parts: Buffer[] = [];

  get isEmpty(): boolean {
    return this.#parts.length === 0;
  }

  /** All bytes to send, which belong to the caller from then on. */
  drain(): Buffer {
    const all = Buffer.concat(this.#parts);
    this.#parts = [];
    return all;
  }

  greet(): void {
    const bytes = Buffer.alloc(GREETING_BYTES);
    for (const [index, word] of [...NBD_MAGIC, ...OPTION_MAGIC].entries()) {
      bytes.writeUInt32BE(word, index * 4);
    }
    bytes.writeUInt16BE(HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES, 16);
    this.#parts.push(bytes);
  }

  #reply(option: number, type: number, data: Buffer): void {
    const header = Buffer.alloc(OPTION_REPLY_HEADER_BYTES);
    const words = [...OPTION_REPLY_MAGIC, option, type, data.length];
    for (const [index, word] of words.entries()) header.writeUInt32BE(word, index * 4);
    this.#parts.push(header, data);
  }

  /** The last reply to an option. */
  end(option: number, type: number): void {
    this.#reply(option, type, Buffer.alloc(0));
  }

  error(option: number, type: number, text: string): void {
    this.#reply(option, type, Buffer.from(text));
  }

  server(option: number, name: string, description: string): void {
    const nameBytes = Buffer.from(name);
    const length = Buffer.alloc(4);
    length.writeUInt32BE(nameBytes.length);
    this.#reply(
      option,
      ReplyType.SERVER,
      Buffer.concat([length, nameBytes, Buffer.from(description)]),
    );
  }

  context(option: number, id: number, name: string): void {
    const idBytes = Buffer.alloc(4);
    idBytes.writeUInt32BE(id);
    this.#reply(option, ReplyType.META_CONTEXT, Buffer.concat([idBytes, Buffer.from(name)]));
  }

  /**
   * The replies to INFO and GO: the requested information, and that which every client needs.
   * @param flags of the export on this connection
   */
  describe(
    option: number,
    described: ExportDescription,
    infos: readonly number[],
    flags: number,
  ): void {
    if (infos.includes(InfoType.NAME)) this.#text(option, InfoType.NAME, described.name);
    if (described.description !== "") {
      this.#text(option, InfoType.DESCRIPTION, described.description);
    }
    const sizes = Buffer.alloc(14);
    sizes.writeUInt16BE(InfoType.BLOCK_SIZE);
    sizes.writeUInt32BE(described.blockBytes, 2);
    sizes.writeUInt32BE(described.preferredBlockBytes, 6);
    sizes.writeUInt32BE(Limit.PAYLOAD_BYTES, 10);
    this.#reply(option, ReplyType.INFO, sizes);
    const size = Buffer.alloc(12);
    size.writeUInt16BE(InfoType.EXPORT);
    size.writeBigUInt64BE(BigInt(described.sizeBytes), 2);
    size.writeUInt16BE(flags, 10);
    this.#reply(option, ReplyType.INFO, size);
  }

  #text(option: number, type: number, text: string): void {
    const kind = Buffer.alloc(2);
    kind.writeUInt16BE(type);
    this.#reply(option, ReplyType.INFO, Buffer.concat([kind, Buffer.from(text)]));
  }

  /** The reply to EXPORT_NAME. */
  startByName(described: ExportDescription, flags: number, noZeroes: boolean): void {
    const bytes = Buffer.alloc(10 + (noZeroes ? 0 : EXPORT_NAME_PADDING_BYTES));
    bytes.writeBigUInt64BE(BigInt(described.sizeBytes));
    bytes.writeUInt16BE(flags, 8);
    this.#parts.push(bytes);
  }
}
