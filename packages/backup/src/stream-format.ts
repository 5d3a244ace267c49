/**
 * The format of a device's content as a stream of bytes. Integers are little-endian.
 *
 * ```
 *   "blksnap stream 1"              16 bytes; the digit is the version
 *   record ...                      HEAD, then DATA and ZERO by ascending offset, then TAIL or FAIL
 *
 *   record:   0  4 letters          what it is
 *             4  u32                bytes of payload behind these 88
 *             8  u64                offset in the device   } of DATA and ZERO
 *            16  u64                length in the device   }
 *            24  SHA-256            of the payload
 *            56  SHA-256            of this field of the record before (first: of zeros) and bytes 0 to 55
 *
 *   HEAD      JSON: what the stream is of, and what it continues
 *   DATA      the device's bytes there, at most 4 MiB; never only zeros
 *   ZERO      zeros there
 *   TAIL      JSON: what was sent. Without it nothing counts
 *   FAIL      JSON: why there is no TAIL
 * ```
 *
 * Each record includes the hash of the one before: none can be missing, repeated, reordered or from another stream.
 * That detects damage; it is no defence against a forged stream.
 */
import { createHash } from "node:crypto";
import type { AsOf } from "./plan.js";

export const STREAM_MAGIC = "blksnap stream ";
export const STREAM_VERSION = "1";
export const MAGIC_BYTES = 16;
export const RECORD_BYTES = 88;
export const TEXT_MAX_BYTES = 65_536;
/** An incremental stream always contains this much of the device's start, which a block device gets last. */
export const STREAM_HEAD_BYTES: number = 2 ** 20;

const AT = { type: 0, payload: 4, offset: 8, length: 16, payloadHash: 24, chain: 56 } as const;
const TYPES = ["HEAD", "DATA", "ZERO", "TAIL", "FAIL"] as const;

export type RecordType = (typeof TYPES)[number];

export interface RecordFields {
  readonly type: RecordType;
  readonly payloadBytes: number;
  readonly offsetBytes: number;
  readonly lengthBytes: number;
  /** In hexadecimal. */
  readonly payloadHash: string;
}

/** What a stream is of. */
export interface StreamHead extends AsOf {
  readonly stream_id: string;
  readonly kind: "full" | "incremental";
  /** The snapshot of the same generation that an incremental stream continues; the time of its take may be unknown. */
  readonly parent: { readonly changes_number: number; readonly taken_at: string | null } | null;
  /** Of the device, in DATA and ZERO. */
  readonly total_bytes: number;
}

/** What was sent in all. */
export interface StreamTail {
  readonly records: number;
  readonly data_bytes: number;
  readonly zero_bytes: number;
}

export interface StreamFail {
  readonly name: string;
  readonly message: string;
}

export function hashOf(data: Uint8Array): string {
  return createHash("sha256").update(data).digest("hex");
}

/** Each record's last field is derived from the record before. */
export class RecordChain {
  #last: Uint8Array = new Uint8Array(32);

  encode({ type, payloadBytes, offsetBytes, lengthBytes, payloadHash }: RecordFields): Buffer {
    const bytes = Buffer.alloc(RECORD_BYTES);
    bytes.write(type, AT.type, "latin1");
    bytes.writeUInt32LE(payloadBytes, AT.payload);
    bytes.writeBigUInt64LE(BigInt(offsetBytes), AT.offset);
    bytes.writeBigUInt64LE(BigInt(lengthBytes), AT.length);
    bytes.write(payloadHash, AT.payloadHash, "hex");
    this.#next(bytes).copy(bytes, AT.chain);
    return bytes;
  }

  /** Undefined if these bytes are not the next record. */
  decode(bytes: Buffer): RecordFields | undefined {
    const found = bytes.toString("latin1", AT.type, AT.payload);
    const type = TYPES.find((one) => one === found);
    if (type === undefined || !this.#next(bytes).equals(bytes.subarray(AT.chain))) return undefined;
    return {
      type,
      payloadBytes: bytes.readUInt32LE(AT.payload),
      offsetBytes: Number(bytes.readBigUInt64LE(AT.offset)),
      lengthBytes: Number(bytes.readBigUInt64LE(AT.length)),
      payloadHash: bytes.toString("hex", AT.payloadHash, AT.chain),
    };
  }

  #next(bytes: Buffer): Buffer {
    const hash = createHash("sha256").update(this.#last).update(bytes.subarray(0, AT.chain));
    const next = hash.digest();
    this.#last = next;
    return next;
  }
}
