/**
 * The server's side of the handshake: bytes in, bytes out, no I/O.
 *
 * ```
 *   greeting ──▶ flags ──▶ header ──▶ data ──▶ answer ──┬──▶ transmission   GO, EXPORT_NAME
 *                            ▲                          ├──▶ TLS            STARTTLS, where that comes first
 *                            │                          ├──▶ closed         ABORT, a broken rule
 *                            └──────────────────────────┘
 *                                discard: more data than is examined
 * ```
 */

import { type ExportDescription, type ExportDirectory, matchingContexts } from "./exports.js";
import { HandshakeReplies } from "./handshake-replies.js";
import { OptionReader } from "./option-reader.js";
import {
  HandshakeFlag,
  Limit,
  OPTION_HEADER_BYTES,
  OPTION_MAGIC,
  Option,
  ReplyType,
  TransmissionFlag,
} from "./protocol.js";

const CLIENT_FLAGS_BYTES = 4;
const KNOWN_FLAGS = HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES;

/** The result of the negotiation. */
export interface Agreement<Export extends ExportDescription> {
  readonly export: Export;
  readonly structured: boolean;
  /** Extended headers, which imply structured replies. */
  readonly extended: boolean;
  /** Their ids are their indices. */
  readonly contexts: Export["contexts"];
}

interface Selection<Export extends ExportDescription> {
  readonly exportName: string;
  readonly contexts: Export["contexts"];
}

/** The exports for clients without TLS: none. */
const NOTHING: ExportDirectory<never> = { find: () => undefined, all: () => [] };

/** The part of a handshake before TLS: a client learns nothing, and can only begin TLS. */
export function handshakeBeforeTls(): Handshake<never> {
  return new Handshake<never>(NOTHING, true);
}

export class Handshake<Export extends ExportDescription> {
  /** Bytes to send; the sender removes them. */
  readonly replies: HandshakeReplies = new HandshakeReplies();
  /** Set when transmission begins, after the bytes to send. */
  agreement: Agreement<Export> | undefined;
  /** Close the connection after sending the replies. */
  isClosed = false;
  /** The client may begin TLS; its next bytes are another handshake, without the greeting. */
  wantsTls = false;
  /** HandshakeFlag bits of the client. */
  flags = 0;
  readonly #needsTls: boolean;
  readonly #exports: ExportDirectory<Export>;
  #awaits: "flags" | "header" | "data" = "flags";
  /** Received bytes of the current unit, and its full length. */
  #unit = Buffer.alloc(OPTION_HEADER_BYTES);
  #have = 0;
  #wanted = CLIENT_FLAGS_BYTES;
  #discardBytes = 0;
  #option = 0;
  #options = 0;
  #structured = false;
  #extended = false;
  #selection: Selection<Export> = { exportName: "", contexts: [] };

  /** @param needsTls all options are refused until TLS begins */
  constructor(exports: ExportDirectory<Export>, needsTls = false) {
    this.#exports = exports;
    this.#needsTls = needsTls;
    this.replies.greet();
  }

  /**
   * Consumes bytes of the client, at most to the end of one option, so that its reply can be sent before the next one
   * is read.
   * @returns how many it consumed
   */
  consume(bytes: Uint8Array): number {
    if (this.isClosed || this.wantsTls || this.agreement !== undefined) return 0;
    if (this.#discardBytes > 0) return this.#discard(bytes.length);
    const count = Math.min(bytes.length, this.#wanted - this.#have);
    this.#unit.set(bytes.subarray(0, count), this.#have);
    this.#have += count;
    if (this.#have === this.#wanted) this.#onUnit();
    return count;
  }

  #discard(available: number): number {
    const count = Math.min(available, this.#discardBytes);
    this.#discardBytes -= count;
    if (this.#discardBytes === 0) {
      this.replies.error(this.#option, ReplyType.ERR_TOO_BIG, "too much data");
    }
    return count;
  }

  #await(what: "header" | "data", wantedBytes: number): void {
    this.#awaits = what;
    this.#have = 0;
    this.#wanted = wantedBytes;
    if (this.#unit.length < wantedBytes) this.#unit = Buffer.alloc(wantedBytes);
    if (wantedBytes === 0) this.#onUnit();
  }

  #onUnit(): void {
    if (this.#awaits === "flags") this.#onFlags(this.#unit.readUInt32BE(0));
    else if (this.#awaits === "header") this.#onHeader();
    else {
      const data = this.#unit.subarray(0, this.#wanted);
      this.#await("header", OPTION_HEADER_BYTES);
      if (this.#needsTls) this.#beforeTls(this.#option, data);
      else this.#onOption(this.#option, data);
    }
  }

  #onFlags(flags: number): void {
    this.isClosed = (flags & ~KNOWN_FLAGS) !== 0 || (flags & HandshakeFlag.FIXED_NEWSTYLE) === 0;
    this.flags = flags;
    this.#await("header", OPTION_HEADER_BYTES);
  }

  #onHeader(): void {
    const header = this.#unit;
    const isMagic =
      header.readUInt32BE(0) === OPTION_MAGIC[0] && header.readUInt32BE(4) === OPTION_MAGIC[1];
    const length = header.readUInt32BE(12);
    this.#option = header.readUInt32BE(8);
    this.#options++;
    if (!isMagic || length > Limit.DISCARD_BYTES || this.#options > Limit.OPTIONS) {
      this.isClosed = true;
      return;
    }
    if (length <= Limit.OPTION_BYTES) {
      this.#await("data", length);
      return;
    }
    this.#await("header", OPTION_HEADER_BYTES);
    this.#discardBytes = length;
  }

  #beforeTls(option: number, data: Buffer): void {
    switch (option) {
      case Option.STARTTLS:
        if (data.length > 0) {
          this.#refuse(option);
          return;
        }
        this.replies.end(option, ReplyType.ACK);
        this.wantsTls = true;
        return;
      case Option.ABORT:
        this.replies.end(option, ReplyType.ACK);
        this.isClosed = true;
        return;
      case Option.EXPORT_NAME:
        // This option has no reply that could refuse.
        this.isClosed = true;
        return;
      default:
        this.replies.error(option, ReplyType.ERR_TLS_REQD, "TLS first: NBD_OPT_STARTTLS");
        return;
    }
  }

  #onOption(option: number, data: Buffer): void {
    switch (option) {
      case Option.EXPORT_NAME:
        this.#onExportName(data);
        return;
      case Option.ABORT:
        this.replies.end(option, ReplyType.ACK);
        this.isClosed = true;
        return;
      case Option.LIST:
        this.#onList(option, data);
        return;
      case Option.INFO:
      case Option.GO:
        this.#onGo(option, data);
        return;
      case Option.STRUCTURED_REPLY:
      case Option.EXTENDED_HEADERS:
        this.#onWayOfReplies(option, data);
        return;
      case Option.LIST_META_CONTEXT:
      case Option.SET_META_CONTEXT:
        this.#onMetaContext(option, data);
        return;
      default:
        this.replies.error(option, ReplyType.ERR_UNSUP, "");
        return;
    }
  }

  /** Extended headers replace structured replies, in whichever order they are requested. */
  #onWayOfReplies(option: number, data: Buffer): void {
    const isExtended = option === Option.EXTENDED_HEADERS;
    if (!isExtended && this.#extended) {
      this.replies.error(option, ReplyType.ERR_EXT_HEADER_REQD, "there are extended headers");
      return;
    }
    if (data.length > 0 || (isExtended ? this.#extended : this.#structured)) {
      this.#refuse(option);
      return;
    }
    this.#structured = true;
    this.#extended = isExtended;
    this.replies.end(option, ReplyType.ACK);
  }

  #refuse(option: number): void {
    this.replies.error(option, ReplyType.ERR_INVALID, "this option is malformed");
  }

  #onExportName(data: Buffer): void {
    const found = data.length > Limit.NAME_BYTES ? undefined : this.#exports.find(data.toString());
    // With extended headers only GO is allowed.
    if (found === undefined || this.#extended) {
      this.isClosed = true;
      return;
    }
    const noZeroes = (this.flags & HandshakeFlag.NO_ZEROES) !== 0;
    this.replies.startByName(found, this.#flagsOf(found, Option.EXPORT_NAME), noZeroes);
    this.#begin(found);
  }

  #begin(found: Export): void {
    this.agreement = {
      export: found,
      structured: this.#structured,
      extended: this.#extended,
      contexts: this.#selectedOf(found),
    };
  }

  #selectedOf(found: Export): Export["contexts"] {
    const { exportName, contexts } = this.#selection;
    const isSame = this.#exports.find(exportName) === found;
    return isSame && this.#structured ? contexts : [];
  }

  /** Flags of the export on this connection. */
  #flagsOf(found: Export, option: number): number {
    const mayFilter = option === Option.INFO || this.#selectedOf(found).length > 0;
    const filters = this.#extended && mayFilter ? TransmissionFlag.BLOCK_STATUS_PAYLOAD : 0;
    return found.flags | filters | (this.#structured ? TransmissionFlag.SEND_DF : 0);
  }

  #onList(option: number, data: Buffer): void {
    if (data.length > 0) {
      this.#refuse(option);
      return;
    }
    for (const { name, description } of this.#exports.all()) {
      this.replies.server(option, name, description);
    }
    this.replies.end(option, ReplyType.ACK);
  }

  #onGo(option: number, data: Buffer): void {
    const reader = new OptionReader(data);
    const name = reader.text();
    const infos: number[] = [];
    for (let left = reader.u16(); left > 0 && reader.isGood; left--) infos.push(reader.u16());
    if (!reader.isWhole) {
      this.#refuse(option);
      return;
    }
    const found = this.#exports.find(name);
    if (found === undefined) {
      this.replies.error(option, ReplyType.ERR_UNKNOWN, "there is no such export");
      return;
    }
    this.replies.describe(option, found, infos, this.#flagsOf(found, option));
    this.replies.end(option, ReplyType.ACK);
    if (option === Option.GO) this.#begin(found);
  }

  #onMetaContext(option: number, data: Buffer): void {
    const lists = option === Option.LIST_META_CONTEXT;
    if (!lists) this.#selection = { exportName: "", contexts: [] };
    const reader = new OptionReader(data);
    const exportName = reader.text();
    const count = reader.u32();
    const queries: string[] = [];
    if (count > Limit.QUERIES) {
      this.replies.error(option, ReplyType.ERR_TOO_BIG, "too many queries");
      return;
    }
    for (let left = count; left > 0 && reader.isGood; left--) queries.push(reader.text());
    if (!reader.isWhole || !this.#structured) {
      this.#refuse(option);
      return;
    }
    const found = this.#exports.find(exportName);
    if (found === undefined) {
      this.replies.error(option, ReplyType.ERR_UNKNOWN, "there is no such export");
      return;
    }
    const matching: Export["contexts"] = matchingContexts(found.contexts, queries, lists);
    const contexts = lists ? matching : matching.slice(0, Limit.CONTEXTS);
    for (const [index, { name }] of contexts.entries()) {
      this.replies.context(option, lists ? 0 : index, name);
    }
    this.replies.end(option, ReplyType.ACK);
    if (!lists) this.#selection = { exportName, contexts };
  }
}
