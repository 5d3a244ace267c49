/**
 * The NBD protocol's numbers and layouts, all big-endian: fixed newstyle handshake, simple and structured
 * replies, extended headers, block status.
 *
 * ```
 *   greeting (18)     u64 "NBDMAGIC" | u64 "IHAVEOPT" | u16 handshake flags
 *   client flags (4)  u32
 *   option (16)       u64 "IHAVEOPT" | u32 option | u32 length | data
 *   reply (20)        u64 0x3e889045565a9 | u32 option | u32 type | u32 length | data
 *
 *   request (28)      u32 0x25609513 | u16 flags | u16 type | u64 cookie | u64 offset | u32 length | data of a write
 *   simple reply (16) u32 0x67446698 | u32 error | u64 cookie | data of a read
 *   chunk (20)        u32 0x668e33ef | u16 flags | u16 type | u64 cookie | u32 length | payload
 * ```
 *
 * With extended headers only these two exist, and a request has a payload if its flags have PAYLOAD_LEN:
 *
 * ```
 *   request (32)      u32 0x21e41c71 | u16 flags | u16 type | u64 cookie | u64 offset | u64 length | payload
 *   chunk (32)        u32 0x6e8a278c | u16 flags | u16 type | u64 cookie | u64 offset of the request | u64 length
 *                     | payload
 * ```
 *
 * Payloads of chunks: OFFSET_DATA u64 offset | data; OFFSET_HOLE u64 offset | u32 length; BLOCK_STATUS
 * u32 context | (u32 length | u32 flags) ...; BLOCK_STATUS_EXT u32 context | u32 extents | (u64 length | u64 flags) ...;
 * ERROR u32 error | u16 length | message. Payload of a request for block status: u64 length | u32 context ...
 */

/** "NBDMAGIC" and "IHAVEOPT", as halves. */
export const NBD_MAGIC: readonly [number, number] = [0x4e42_444d, 0x4147_4943];
export const OPTION_MAGIC: readonly [number, number] = [0x4948_4156, 0x454f_5054];
export const OPTION_REPLY_MAGIC: readonly [number, number] = [0x0003_e889, 0x0455_65a9];

export const REQUEST_MAGIC = 0x2560_9513;
export const SIMPLE_REPLY_MAGIC = 0x6744_6698;
export const CHUNK_MAGIC = 0x668e_33ef;
export const EXTENDED_REQUEST_MAGIC = 0x21e4_1c71;
export const EXTENDED_CHUNK_MAGIC = 0x6e8a_278c;

export const GREETING_BYTES = 18;
export const OPTION_HEADER_BYTES = 16;
export const OPTION_REPLY_HEADER_BYTES = 20;
export const REQUEST_BYTES = 28;
export const SIMPLE_REPLY_BYTES = 16;
export const CHUNK_HEADER_BYTES = 20;
export const EXTENDED_REQUEST_BYTES = 32;
export const EXTENDED_CHUNK_HEADER_BYTES = 32;
/** Zeroes after the reply to EXPORT_NAME, unless the client declines them. */
export const EXPORT_NAME_PADDING_BYTES = 124;

/** Flags of the greeting; the client answers with the same bits. */
export const HandshakeFlag = { FIXED_NEWSTYLE: 1, NO_ZEROES: 2 } as const;

export const Option = {
  EXPORT_NAME: 1,
  ABORT: 2,
  LIST: 3,
  STARTTLS: 5,
  INFO: 6,
  GO: 7,
  STRUCTURED_REPLY: 8,
  LIST_META_CONTEXT: 9,
  SET_META_CONTEXT: 10,
  EXTENDED_HEADERS: 11,
} as const;

export const ReplyType = {
  ACK: 1,
  SERVER: 2,
  INFO: 3,
  META_CONTEXT: 4,
  ERR_UNSUP: 0x8000_0001,
  ERR_POLICY: 0x8000_0002,
  ERR_INVALID: 0x8000_0003,
  ERR_TLS_REQD: 0x8000_0005,
  ERR_UNKNOWN: 0x8000_0006,
  ERR_TOO_BIG: 0x8000_0009,
  ERR_EXT_HEADER_REQD: 0x8000_000a,
} as const;

/** Information in the replies to INFO and GO. */
export const InfoType = { EXPORT: 0, NAME: 1, DESCRIPTION: 2, BLOCK_SIZE: 3 } as const;

/** Flags of an export. */
export const TransmissionFlag = {
  HAS_FLAGS: 1,
  READ_ONLY: 2,
  SEND_FLUSH: 4,
  SEND_FUA: 8,
  ROTATIONAL: 0x10,
  SEND_TRIM: 0x20,
  SEND_WRITE_ZEROES: 0x40,
  SEND_DF: 0x80,
  CAN_MULTI_CONN: 0x100,
  SEND_CACHE: 0x400,
  BLOCK_STATUS_PAYLOAD: 0x1000,
} as const;

export const Command = {
  READ: 0,
  WRITE: 1,
  DISCONNECT: 2,
  FLUSH: 3,
  TRIM: 4,
  CACHE: 5,
  WRITE_ZEROES: 6,
  BLOCK_STATUS: 7,
} as const;

export const CommandFlag = {
  FUA: 1,
  NO_HOLE: 2,
  DF: 4,
  REQ_ONE: 8,
  FAST_ZERO: 0x10,
  PAYLOAD_LEN: 0x20,
} as const;

/** Sizes for block status: before the extents, and of each of them. */
export const STATUS_LAYOUT = { headBytes: 4, extentBytes: 8 } as const;
/** The same with extended headers. */
export const EXTENDED_STATUS_LAYOUT = { headBytes: 8, extentBytes: 16 } as const;

/** On the last chunk of a reply. */
export const CHUNK_DONE = 1;

export const ChunkType = {
  NONE: 0,
  OFFSET_DATA: 1,
  OFFSET_HOLE: 2,
  BLOCK_STATUS: 5,
  BLOCK_STATUS_EXT: 6,
  ERROR: 0x8001,
  ERROR_OFFSET: 0x8002,
} as const;

/** Set in the types of all error chunks. */
export const CHUNK_ERROR_BIT = 0x8000;

/** Errors on the wire, with Linux's numbers. */
export const WireError = {
  EPERM: 1,
  EIO: 5,
  ENOMEM: 12,
  EINVAL: 22,
  ENOSPC: 28,
  EOVERFLOW: 75,
  ENOTSUP: 95,
  ESHUTDOWN: 108,
} as const;

/** Flags of `base:allocation`. */
export const AllocationFlag = { HOLE: 1, ZERO: 2 } as const;
/** Flag of `qemu:dirty-bitmap:NAME`. */
export const DIRTY = 1;
export const BASE_ALLOCATION = "base:allocation";

/** Bounds of the protocol, and this server's and client's own ones. */
export const Limit = {
  /** Of export names, descriptions and names of contexts. */
  NAME_BYTES: 4096,
  /** Most data of an option that is examined; longer data is discarded with the reply TOO_BIG. */
  OPTION_BYTES: 65_536,
  /** A client that sends more than this for an option or a write is disconnected. */
  DISCARD_BYTES: 67_108_864,
  /** Most options of a connection; nbdkit allows 32, and clients that list many exports send one for each. */
  OPTIONS: 256,
  /** Most bytes of one read or write. */
  PAYLOAD_BYTES: 33_554_432,
  /** Most queries in one request for contexts, and contexts that a connection can select. */
  QUERIES: 64,
  CONTEXTS: 16,
  /** Most extents of one context in one reply, as in QEMU. */
  EXTENTS: 131_072,
} as const;
