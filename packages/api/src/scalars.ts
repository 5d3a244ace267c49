/** Schemas of the plain values that requests and responses are made of. */
import { STORE_PATHS_TEXT, STORE_WORDS } from "./store-kinds.js";

/** Longest path that Linux accepts (PATH_MAX without the final zero byte). */
export const PATH_LENGTH_MAX_BYTES = 4095;
/** Longest wait for an event: the maximum of Node's timers. */
export const EVENT_TIMEOUT_MAX_MS = 2_147_483_647;
/** Most ranges in one request to mark blocks as changed; keeps its body below the body limit. */
export const MARK_RANGES_MAX = 8192;
/** Most bytes of a CBT map in one response. */
export const CBT_MAP_SLICE_MAX_BYTES = 1_048_576;
/** Ranges are multiples of such sectors, whatever the device's block size. */
export const SECTOR_SIZE_BYTES = 512;
/** Most stores of one snapshot. */
export const STORES_MAX = 8;

export const count = { type: "integer", minimum: 0, maximum: Number.MAX_SAFE_INTEGER } as const;
export const countOrNull = {
  type: ["integer", "null"],
  minimum: 0,
  maximum: Number.MAX_SAFE_INTEGER,
} as const;
export const wholeSectors = {
  ...count,
  multipleOf: SECTOR_SIZE_BYTES,
  description: "a multiple of 512",
} as const;
export const text = { type: "string" } as const;
export const textOrNull = { type: ["string", "null"] } as const;
export const flag = { type: "boolean" } as const;

export const path = {
  type: "string",
  pattern: "^/[^\\u0000]*$",
  maxLength: PATH_LENGTH_MAX_BYTES,
  description: "absolute path",
} as const;

export const device = {
  type: "string",
  pattern: "^/[^\\u0000]*$",
  maxLength: PATH_LENGTH_MAX_BYTES,
  description: "absolute path of a block device or image file; original or front",
} as const;

export const store = {
  type: "string",
  pattern: `^(/[^\\u0000]*|${STORE_WORDS.join("|")})$`,
  maxLength: PATH_LENGTH_MAX_BYTES,
  description: `absolute path of a ${STORE_PATHS_TEXT}; or ${STORE_WORDS.join(", ")}`,
} as const;

export const uuid = {
  type: "string",
  pattern: "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$",
} as const;

export const uuidOrNull = { type: ["string", "null"], pattern: uuid.pattern } as const;

export const wallTime = { type: "string", description: "ISO 8601, UTC" } as const;
export const wallTimeOrNull = { type: ["string", "null"], description: "ISO 8601, UTC" } as const;

/** 0 if there is no error, else a negative errno, as in the kernel module. */
export const errorCode = {
  type: "integer",
  maximum: 0,
  description: "0 or a negative errno",
} as const;
