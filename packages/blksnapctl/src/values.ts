/** Reads the values of options; each function throws a usage error that names the option. */
import { resolve } from "node:path";
import {
  EVENT_TIMEOUT_MAX_MS,
  MEMORY_STORE,
  type OverflowPolicy,
  SECTOR_SIZE_BYTES,
  type SectorRange,
} from "@blksnap/api";
import { usageError } from "./usage-error.js";

const UNITS = "KMGTPE";
const SIZE = /^([0-9]+)(?:([KMGTPE])(?:iB)?|B)?$/i;
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

function sizeFault(text: string): string {
  if (/^-/.test(text)) return `'${text}' is negative`;
  if (/^[0-9]*[.,][0-9]/.test(text)) return `'${text}' is a fraction`;
  if (/^[0-9]+[KMGTPE]B$/i.test(text))
    return `'${text}' is ambiguous, write ${text.slice(0, -1)} or ${text.slice(0, -1)}iB`;
  return `'${text}' is no size`;
}

/** A size like 512, 64M or 2GiB, in bytes; units are powers of 1024. */
export function parseLimit(text: string): number {
  const match = SIZE.exec(text);
  if (match === null) throw usageError(`limit: ${sizeFault(text)}`, "LIMIT_INVALID");
  const unit = match[2]?.toUpperCase();
  const exact =
    BigInt(match[1]!) * 1024n ** BigInt(unit === undefined ? 0 : UNITS.indexOf(unit) + 1);
  if (exact > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw usageError(`limit: '${text}' is too large, at most 8191T`, "LIMIT_INVALID");
  }
  if (exact < BigInt(SECTOR_SIZE_BYTES)) {
    const why = exact === 0n ? "is zero" : "is smaller than a sector (512 bytes)";
    throw usageError(`limit: '${text}' ${why}`, "LIMIT_INVALID");
  }
  return Number(exact);
}

/** A uuid in lower case. */
export function parseId(text: string, option = "id"): string {
  if (!UUID.test(text)) throw usageError(`${option}: '${text}' is no uuid`, "ID_INVALID");
  return text.toLowerCase();
}

/** A whole number from `minimum` to `maximum`. */
export function parseNumber(text: string, option: string, maximum: number, minimum = 0): number {
  const value = /^[0-9]{1,16}$/.test(text) ? Number(text) : Number.NaN;
  if (!(value >= minimum && value <= maximum)) {
    const why = `${option}: '${text}' is no whole number from ${minimum} to ${maximum}`;
    throw usageError(why, "USAGE", `Give --${option} NUMBER`);
  }
  return value;
}

export function parseTimeout(text: string): number {
  return parseNumber(text, "timeout", EVENT_TIMEOUT_MAX_MS);
}

/** A path as the daemon takes it: absolute, since the daemon works in another folder. */
export function parsePath(text: string): string {
  return resolve(text);
}

export function parseStore(text: string): string {
  return text === MEMORY_STORE ? text : resolve(text);
}

/** A range of sectors, FIRST:COUNT. */
export function parseRange(text: string): SectorRange {
  const match = /^([0-9]{1,16}):([0-9]{1,16})$/.exec(text);
  const offset_sectors = Number(match?.[1]);
  const count_sectors = Number(match?.[2]);
  if (!Number.isSafeInteger(offset_sectors + count_sectors) || count_sectors === 0) {
    const why = `Invalid format of range string. '${text}' is not FIRST:COUNT`;
    throw usageError(why, "USAGE", "Give sectors of 512 bytes, as in --ranges 2048:8");
  }
  return { offset_sectors, count_sectors };
}

/** break-snapshot, fail-writes or block-writes[=SECONDS]. */
export function parseOverflow(text: string): OverflowPolicy {
  if (text === "break-snapshot" || text === "fail-writes" || text === "block-writes") {
    return { policy: text };
  }
  const match = /^block-writes=([1-9][0-9]{0,6})$/.exec(text);
  const timeout_ms = Number(match?.[1]) * 1000;
  if (!(timeout_ms <= EVENT_TIMEOUT_MAX_MS)) {
    const hint = "Give break-snapshot, fail-writes or block-writes[=SECONDS]";
    throw usageError(`on-overflow: '${text}' is no policy`, "USAGE", hint);
  }
  return { policy: "block-writes", timeout_ms };
}
