/** Reads a stream without trusting it: checks each record before passing it on. */
import type { Readable } from "node:stream";
import { messageOf } from "@blksnap/errors";
import { CHUNK_BYTES } from "./chunks.js";
import { BackupError } from "./errors.js";
import {
  hashOf,
  MAGIC_BYTES,
  RECORD_BYTES,
  RecordChain,
  type RecordFields,
  STREAM_HEAD_BYTES,
  STREAM_MAGIC,
  STREAM_VERSION,
  type StreamFail,
  type StreamHead,
  type StreamTail,
  TEXT_MAX_BYTES,
} from "./stream-format.js";

/** A part of the device. The content is unverified: compare it with its hash. */
export interface StreamPart {
  readonly offsetBytes: number;
  readonly lengthBytes: number;
  /** Null for zeros. */
  readonly content: { readonly data: Uint8Array<ArrayBuffer>; readonly hash: string } | null;
}

export function damagedStream(why: string): BackupError {
  const hint = "Send the stream again";
  return new BackupError("BACKUP_DAMAGED", `the stream is damaged: ${why}`, { hint });
}

function unreadable(error: unknown): BackupError {
  if (error instanceof BackupError) return error;
  const why = `can't read the stream: ${messageOf(error)}`;
  return new BackupError("BACKUP_INCOMPLETE", why, { cause: error });
}

/** Reads an exact number of bytes from pieces of any size. */
class ByteSource {
  readonly #pieces: AsyncIterator<Uint8Array>;
  #piece: Uint8Array = new Uint8Array(0);
  /** Bytes read so far. */
  doneBytes = 0;

  constructor(input: Readable) {
    this.#pieces = input[Symbol.asyncIterator]();
  }

  /** Bytes read: fewer only at the end. */
  async fill(data: Uint8Array): Promise<number> {
    let filled = 0;
    while (filled < data.length) {
      if (this.#piece.length === 0) {
        const { done, value } = await this.#pieces.next().catch((error: unknown) => {
          throw unreadable(error);
        });
        if (done === true) break;
        this.#piece = value;
      }
      const some = this.#piece.subarray(0, data.length - filled);
      data.set(some, filled);
      filled += some.length;
      this.#piece = this.#piece.subarray(some.length);
    }
    this.doneBytes += filled;
    return filled;
  }
}

function isStreamHead(fields: Partial<StreamHead>): fields is StreamHead {
  const { kind, parent, capacity_bytes: capacity, changes_number, total_bytes } = fields;
  const texts = [fields.stream_id, fields.host, fields.device, fields.generation_id];
  const isParent =
    parent !== null &&
    typeof parent === "object" &&
    Number.isSafeInteger(parent.changes_number) &&
    (parent.taken_at === null || typeof parent.taken_at === "string");
  return (
    [...texts, fields.taken_at].every((text) => typeof text === "string") &&
    [changes_number, capacity, total_bytes].every(Number.isSafeInteger) &&
    capacity! > 0 &&
    (kind === "full" ? parent === null : kind === "incremental" && isParent)
  );
}

export class StreamReader {
  readonly #bytes: ByteSource;
  #chain = new RecordChain();
  #head: StreamHead | undefined;
  #tail: StreamTail | undefined;
  #records = 0;
  #dataBytes = 0;
  #zeroBytes = 0;
  #endBytes = 0;

  constructor(input: Readable) {
    this.#bytes = new ByteSource(input);
  }

  /**
   * The head of the next stream; undefined if the input ends before it.
   * @throws BackupError BACKUP_DAMAGED, BACKUP_VERSION, BACKUP_INCOMPLETE
   */
  async begin(): Promise<StreamHead | undefined> {
    const magic = Buffer.alloc(MAGIC_BYTES);
    const found = await this.#bytes.fill(magic);
    if (found === 0) return undefined;
    const text = magic.toString("latin1", 0, found);
    if (!text.startsWith(STREAM_MAGIC.slice(0, found))) {
      const why = "this is not a stream of blksnapctl export --to -";
      throw new BackupError("BACKUP_DAMAGED", why, {
        hint: "Give the stream exactly as export sent it",
      });
    }
    if (found < MAGIC_BYTES) throw this.#incomplete();
    if (!text.endsWith(STREAM_VERSION)) {
      throw new BackupError("BACKUP_VERSION", `the stream is of version ${text.at(-1)}`);
    }
    this.#chain = new RecordChain();
    [this.#records, this.#dataBytes, this.#zeroBytes, this.#endBytes] = [0, 0, 0, 0];
    this.#tail = undefined;
    const fields = await this.#record();
    if (fields.type !== "HEAD") throw damagedStream("it has no head");
    const head = await this.#text<Partial<StreamHead>>(fields);
    if (!isStreamHead(head)) throw damagedStream("its head misses fields");
    this.#head = head;
    return head;
  }

  /** All parts, in order. Ends normally only if the stream is complete and whole. */
  async *parts(): AsyncGenerator<StreamPart, void> {
    for (;;) {
      const fields = await this.#record();
      switch (fields.type) {
        case "DATA":
        case "ZERO":
          yield await this.#part(fields);
          break;
        case "FAIL": {
          const { name, message } = await this.#text<StreamFail>(fields);
          const why = `the export that sent the stream failed: ${message} [${name}]`;
          throw new BackupError("BACKUP_INCOMPLETE", why);
        }
        case "TAIL":
          this.#tail = await this.#text<StreamTail>(fields);
          return this.#checkTail(this.#tail);
        case "HEAD":
          throw damagedStream("it has a second head");
      }
    }
  }

  async #part({ type, payloadBytes, offsetBytes, lengthBytes, payloadHash }: RecordFields) {
    const { capacity_bytes } = this.#head!;
    const isData = type === "DATA";
    const isInside = lengthBytes > 0 && offsetBytes + lengthBytes <= capacity_bytes;
    const isNext =
      offsetBytes === this.#endBytes ||
      (offsetBytes > this.#endBytes && this.#endBytes >= this.#wholeBytes());
    const isSize = isData
      ? payloadBytes === lengthBytes && lengthBytes <= CHUNK_BYTES
      : payloadBytes === 0;
    if (!isInside || !isNext || !isSize) {
      throw damagedStream(`its record ${this.#records} is out of order`);
    }
    this.#endBytes = offsetBytes + lengthBytes;
    if (!isData) {
      this.#zeroBytes += lengthBytes;
      return { offsetBytes, lengthBytes, content: null };
    }
    this.#dataBytes += lengthBytes;
    const data = new Uint8Array(payloadBytes);
    if ((await this.#bytes.fill(data)) < payloadBytes) throw this.#incomplete();
    return { offsetBytes, lengthBytes, content: { data, hash: payloadHash } };
  }

  #checkTail({ records, data_bytes, zero_bytes }: StreamTail): void {
    const isAll =
      records === this.#records - 1 &&
      data_bytes === this.#dataBytes &&
      zero_bytes === this.#zeroBytes;
    if (!isAll || this.#endBytes < this.#wholeBytes()) {
      throw damagedStream("its length differs from its end record");
    }
  }

  /** Bytes from the start of the device on without a gap. */
  #wholeBytes(): number {
    const { kind, capacity_bytes } = this.#head!;
    return kind === "full" ? capacity_bytes : Math.min(STREAM_HEAD_BYTES, capacity_bytes);
  }

  async #record(): Promise<RecordFields> {
    const bytes = Buffer.alloc(RECORD_BYTES);
    const at = this.#bytes.doneBytes;
    if ((await this.#bytes.fill(bytes)) < RECORD_BYTES) throw this.#incomplete();
    const fields = this.#chain.decode(bytes);
    if (fields === undefined) throw damagedStream(`there is no valid record at byte ${at}`);
    this.#records++;
    return fields;
  }

  async #text<Fields>({ payloadBytes, payloadHash }: RecordFields): Promise<Fields> {
    if (payloadBytes > TEXT_MAX_BYTES) throw damagedStream("a text is too long");
    const data = Buffer.alloc(payloadBytes);
    if ((await this.#bytes.fill(data)) < payloadBytes) throw this.#incomplete();
    if (hashOf(data) !== payloadHash) throw damagedStream("the checksum of a text differs");
    try {
      const fields = JSON.parse(data.toString()) as Fields | null;
      if (fields !== null) return fields;
    } catch {
      // Counts as null.
    }
    throw damagedStream("a text is not JSON");
  }

  #incomplete(): BackupError {
    const why = `the stream ends at its byte ${this.#bytes.doneBytes}, before its end record`;
    return new BackupError("BACKUP_INCOMPLETE", why);
  }
}
