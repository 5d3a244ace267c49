/** Encodes requests of a client. */
import {
  CommandFlag,
  EXTENDED_REQUEST_BYTES,
  EXTENDED_REQUEST_MAGIC,
  REQUEST_BYTES,
  REQUEST_MAGIC,
} from "./protocol.js";

export interface RequestWords {
  /** A Command. */
  readonly type: number;
  /** CommandFlag bits, without PAYLOAD_LEN. */
  readonly flags: number;
  readonly cookie: bigint;
  readonly offsetBytes: number;
  readonly lengthBytes: number;
  /** Length of the payload. */
  readonly payloadBytes: number;
}

/** @param isExtended otherwise lengthBytes must be below 4 GiB */
export function requestHeader(words: RequestWords, isExtended: boolean): Buffer {
  const { type, flags, cookie, offsetBytes, lengthBytes, payloadBytes } = words;
  const header = Buffer.alloc(isExtended ? EXTENDED_REQUEST_BYTES : REQUEST_BYTES);
  const hasPayload = isExtended && payloadBytes > 0;
  header.writeUInt32BE(isExtended ? EXTENDED_REQUEST_MAGIC : REQUEST_MAGIC);
  header.writeUInt16BE(hasPayload ? flags | CommandFlag.PAYLOAD_LEN : flags, 4);
  header.writeUInt16BE(type, 6);
  header.writeBigUInt64BE(cookie, 8);
  header.writeBigUInt64BE(BigInt(offsetBytes), 16);
  if (isExtended) header.writeBigUInt64BE(BigInt(hasPayload ? payloadBytes : lengthBytes), 24);
  else header.writeUInt32BE(lengthBytes, 24);
  return header;
}

/** Payload of a request for block status: the range's length, and the ids of the requested contexts. */
export function filterPayload(lengthBytes: number, ids: readonly number[]): Buffer {
  const payload = Buffer.alloc(8 + ids.length * 4);
  payload.writeBigUInt64BE(BigInt(lengthBytes));
  for (const [index, id] of ids.entries()) payload.writeUInt32BE(id, 8 + index * 4);
  return payload;
}
