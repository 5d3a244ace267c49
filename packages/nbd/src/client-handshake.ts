/** The client's side of the handshake. */
import type { Socket } from "node:net";
import { NbdError } from "./errors.js";
import { OptionReader } from "./option-reader.js";
import {
  GREETING_BYTES,
  HandshakeFlag,
  InfoType,
  Limit,
  NBD_MAGIC,
  OPTION_HEADER_BYTES,
  OPTION_MAGIC,
  OPTION_REPLY_HEADER_BYTES,
  OPTION_REPLY_MAGIC,
  Option,
  ReplyType,
} from "./protocol.js";
import type { ByteReader } from "./socket-reader.js";

/** Bounds of the replies to one option: many exports may be listed. */
const REPLIES_MAX = 65_536;
const REPLIES_BYTES_MAX = 16_777_216;

/** An export, as its server describes it. */
export interface NegotiatedExport {
  readonly sizeBytes: number;
  /** TransmissionFlag bits. */
  readonly flags: number;
  readonly description: string;
  readonly blockBytes: number;
  readonly preferredBlockBytes: number;
  readonly maxPayloadBytes: number;
}

/** The minimum block size of an export may be this large. */
const BLOCK_BYTES_MAX = 65_536;

interface OptionReply {
  readonly type: number;
  readonly data: Buffer;
}

function textBytes(text: string): Buffer {
  const bytes = Buffer.from(text);
  const length = Buffer.alloc(4);
  length.writeUInt32BE(bytes.length);
  return Buffer.concat([length, bytes]);
}

function isError(type: number): boolean {
  return type >= ReplyType.ERR_UNSUP;
}

export class ClientHandshake {
  readonly #socket: Socket;
  readonly #reader: ByteReader;

  constructor(socket: Socket, reader: ByteReader) {
    this.#socket = socket;
    this.#reader = reader;
  }

  /** @throws NbdError PROTOCOL_VIOLATED if it is not an NBD server, or one with the old handshake */
  async greet(): Promise<void> {
    const greeting = await this.#reader.read(GREETING_BYTES);
    const magic = [...NBD_MAGIC, ...OPTION_MAGIC];
    const flags = greeting.readUInt16BE(16);
    const isNbd = magic.every((word, index) => greeting.readUInt32BE(index * 4) === word);
    if (!isNbd || (flags & HandshakeFlag.FIXED_NEWSTYLE) === 0) {
      throw new NbdError("PROTOCOL_VIOLATED", "no NBD server with the fixed newstyle handshake");
    }
    const answer = Buffer.alloc(4);
    answer.writeUInt32BE(flags & (HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES));
    this.#socket.write(answer);
  }

  /** TLS takes over the connection from here. @throws NbdError HANDSHAKE_REFUSED: the server has none */
  async startTls(): Promise<void> {
    await this.#askFor(Option.STARTTLS, Buffer.alloc(0), "begin TLS");
  }

  /** @returns whether the server has structured replies */
  structured(): Promise<boolean> {
    return this.#has(Option.STRUCTURED_REPLY);
  }

  /** In place of structured replies. @returns whether the server has extended headers */
  extended(): Promise<boolean> {
    return this.#has(Option.EXTENDED_HEADERS);
  }

  async #has(option: number): Promise<boolean> {
    const replies = await this.#ask(option, Buffer.alloc(0));
    return replies.at(-1)?.type === ReplyType.ACK;
  }

  /** Names of the exports, with their descriptions. @throws NbdError HANDSHAKE_REFUSED */
  async list(): Promise<{ name: string; description: string }[]> {
    const replies = await this.#askFor(Option.LIST, Buffer.alloc(0), "list its exports");
    return replies.map(({ data }) => {
      const reader = new OptionReader(data);
      const name = reader.text();
      if (!reader.isGood) throw new NbdError("PROTOCOL_VIOLATED", "an export without a name");
      return { name, description: reader.rest() };
    });
  }

  /** Names of contexts by their ids. Without queries it lists all, and selects none. */
  async contexts(exportName: string, queries: readonly string[]): Promise<Map<number, string>> {
    const option = queries.length > 0 ? Option.SET_META_CONTEXT : Option.LIST_META_CONTEXT;
    const count = Buffer.alloc(4);
    count.writeUInt32BE(queries.length);
    const data = Buffer.concat([textBytes(exportName), count, ...queries.map(textBytes)]);
    const replies = await this.#askFor(option, data, "list its contexts");
    const found = new Map<number, string>();
    for (const [index, { data: bytes }] of replies.entries()) {
      const reader = new OptionReader(bytes);
      const id = reader.u32();
      found.set(queries.length > 0 ? id : index, reader.rest());
    }
    return found;
  }

  /** Begins transmission. @throws NbdError EXPORT_UNKNOWN, HANDSHAKE_REFUSED */
  async go(exportName: string): Promise<NegotiatedExport> {
    const infos = Buffer.alloc(6);
    infos.writeUInt16BE(2);
    infos.writeUInt16BE(InfoType.BLOCK_SIZE, 2);
    infos.writeUInt16BE(InfoType.DESCRIPTION, 4);
    const data = Buffer.concat([textBytes(exportName), infos]);
    const replies = await this.#ask(Option.GO, data);
    const last = replies.at(-1);
    if (last?.type === ReplyType.ERR_UNKNOWN) {
      throw new NbdError("EXPORT_UNKNOWN", `the server has no export "${exportName}"`);
    }
    if (last?.type !== ReplyType.ACK) throw refused(last, `open "${exportName}"`);
    return readInfos(replies.slice(0, -1));
  }

  /** Sends the end of the session, and does not wait. */
  abort(): void {
    this.#send(Option.ABORT, Buffer.alloc(0));
  }

  #send(option: number, data: Buffer): void {
    const header = Buffer.alloc(OPTION_HEADER_BYTES);
    const words = [...OPTION_MAGIC, option, data.length];
    for (const [index, word] of words.entries()) header.writeUInt32BE(word, index * 4);
    this.#socket.write(Buffer.concat([header, data]));
  }

  /** All replies but the last, which must be an ACK. */
  async #askFor(option: number, data: Buffer, what: string): Promise<OptionReply[]> {
    const replies = await this.#ask(option, data);
    const last = replies.at(-1);
    if (last?.type !== ReplyType.ACK) throw refused(last, what);
    return replies.slice(0, -1);
  }

  async #ask(option: number, data: Buffer): Promise<OptionReply[]> {
    this.#send(option, data);
    const replies: OptionReply[] = [];
    let bytes = 0;
    while (replies.length < REPLIES_MAX && bytes < REPLIES_BYTES_MAX) {
      const header = await this.#reader.read(OPTION_REPLY_HEADER_BYTES);
      const isMagic = OPTION_REPLY_MAGIC.every((word, at) => header.readUInt32BE(at * 4) === word);
      const length = header.readUInt32BE(16);
      if (!isMagic || header.readUInt32BE(8) !== option || length > Limit.OPTION_BYTES) {
        throw new NbdError(
          "PROTOCOL_VIOLATED",
          `what answers option ${option} is not a reply to it`,
        );
      }
      const type = header.readUInt32BE(12);
      bytes += length;
      replies.push({ type, data: await this.#reader.read(length) });
      if (type === ReplyType.ACK || isError(type)) return replies;
    }
    throw new NbdError("PROTOCOL_VIOLATED", `option ${option} is answered without an end`);
  }
}

function refused(reply: OptionReply | undefined, what: string): NbdError {
  const words = reply === undefined || reply.data.length === 0 ? "" : `: ${reply.data.toString()}`;
  const type = ((reply?.type ?? 0) & 0xffff).toString();
  return new NbdError("HANDSHAKE_REFUSED", `the server does not ${what} (error ${type})${words}`);
}

function readInfos(replies: readonly OptionReply[]): NegotiatedExport {
  let found: { sizeBytes: number; flags: number } | undefined;
  let description = "";
  let sizes = [1, 4096, Limit.PAYLOAD_BYTES];
  for (const { type, data } of replies) {
    if (type !== ReplyType.INFO || data.length < 2) continue;
    const info = data.readUInt16BE(0);
    if (info === InfoType.DESCRIPTION) description = data.toString("utf8", 2);
    if (info === InfoType.EXPORT && data.length === 12) {
      found = { sizeBytes: Number(data.readBigUInt64BE(2)), flags: data.readUInt16BE(10) };
    }
    if (info === InfoType.BLOCK_SIZE && data.length === 14) {
      sizes = [2, 6, 10].map((at) => data.readUInt32BE(at));
    }
  }
  if (found === undefined || !Number.isSafeInteger(found.sizeBytes)) {
    throw new NbdError("PROTOCOL_VIOLATED", "the server does not send the size of its export");
  }
  const [blockBytes, preferredBlockBytes, maxPayloadBytes] = sizes;
  const isPower = blockBytes > 0 && (blockBytes & (blockBytes - 1)) === 0;
  if (!isPower || blockBytes > BLOCK_BYTES_MAX || maxPayloadBytes < blockBytes) {
    throw new NbdError("PROTOCOL_VIOLATED", "the server sends impossible block sizes");
  }
  return {
    ...found,
    description,
    blockBytes,
    preferredBlockBytes,
    maxPayloadBytes: Math.min(maxPayloadBytes, Limit.PAYLOAD_BYTES),
  };
}
