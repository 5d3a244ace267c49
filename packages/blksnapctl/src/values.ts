/** Parses values of options; each function throws a usage error that names the option. */
import { resolve } from "node:path";
import {
  type ByteRange,
  EVENT_TIMEOUT_MAX_MS,
  type OverflowPolicy,
  PATH_LENGTH_MAX_BYTES,
  SECTOR_SIZE_BYTES,
  STORES_MAX,
  storeKindByWord,
} from "@blksnap/api";
import { quoted } from "./argv.js";
import { usageError } from "./usage-error.js";

/** Linux stores 108 bytes for the path of a socket, one of them a zero. */
const SOCKET_PATH_MAX_BYTES = 107;
const UNITS = "KMGTPE";
/** No valid size has more digits; parsing them would only cost time. */
const SIZE = /^([0-9]{1,32})(?:([KMGTPE])(?:iB)?|B)?$/i;
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

const READER = /^[A-Za-z0-9][A-Za-z0-9_.:@-]{0,63}$/;
/** Stands for bytes of an argument that are not UTF-8. */
const REPLACEMENT = "\ufffd";

const SIZE_TOO_LARGE = "is too large, at most 8191T";

function sizeFault(text: string): string {
  if (/^-/.test(text)) return "is negative";
  if (/^[0-9]*[.,][0-9]/.test(text)) return "is a fraction";
  if (/^[0-9]{1,32}[KMGTPE]B$/i.test(text)) {
    return `is ambiguous, write ${text.slice(0, -1)} or ${text.slice(0, -1)}iB`;
  }
  return /^[0-9]{33}/.test(text) ? SIZE_TOO_LARGE : "is not a size";
}

/** A size like 512, 64M or 2GiB, in bytes; units are powers of 1024. */
export function parseLimit(text: string): number {
  const match = SIZE.exec(text);
  if (match === null) {
    throw usageError(`limit: ${quoted(text)} ${sizeFault(text)}`, "LIMIT_INVALID");
  }
  const unit = match[2]?.toUpperCase();
  const exact =
    BigInt(match[1]!) * 1024n ** BigInt(unit === undefined ? 0 : UNITS.indexOf(unit) + 1);
  if (exact > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw usageError(`limit: '${text}' ${SIZE_TOO_LARGE}`, "LIMIT_INVALID");
  }
  if (exact < BigInt(SECTOR_SIZE_BYTES)) {
    const why = exact === 0n ? "is zero" : "is smaller than a sector (512 bytes)";
    throw usageError(`limit: '${text}' ${why}`, "LIMIT_INVALID");
  }
  return Number(exact);
}

/** A generation's uuid in lower case. */
export function parseGeneration(text: string): string {
  if (UUID.test(text)) return text.toLowerCase();
  const hint = "Give the generation_id that cbtinfo or diff has shown";
  throw usageError(`generation: ${quoted(text)} is not a uuid`, "ID_INVALID", hint);
}

/** The name of a reader of events. */
export function parseReader(text: string): string {
  if (READER.test(text)) return text;
  const hint = "Give up to 64 letters, digits or any of _.:@-";
  throw usageError(`reader: ${quoted(text)} is not a name`, "USAGE", hint);
}

const POINT = /^[0-9A-Za-z][0-9A-Za-z:.+-]{0,63}$/;

/** A time, or the beginning of a point's id. */
export function parsePoint(text: string): string {
  if (POINT.test(text)) return text.replace(/^[0-9a-f-]+$/i, (id) => id.toLowerCase());
  const hint = "Give the beginning of an id that list shows, or a time such as 2038-01-01T06:00Z";
  throw usageError(`at: ${quoted(text)} is not a point`, "USAGE", hint);
}

/** Names up to Linux's length (HOST_NAME_MAX) by their usual rules, and "_". */
const HOST = /^[0-9A-Za-z_][0-9A-Za-z_.-]{0,63}$/;

/** The name of a host, or the beginning of its machine id. */
export function parseHost(text: string): string {
  if (HOST.test(text)) return text;
  const hint = "Give a name that list shows, or the beginning of a machine_id of list --json";
  throw usageError(`host: ${quoted(text)} is not a host`, "USAGE", hint);
}

/** As lvm(8) has it. */
const VOLUME = /^(?!\.\.?$)[0-9A-Za-z+_.][0-9A-Za-z+_.-]{0,126}$/;

/** The name of a logical volume. */
export function parseVolume(text: string): string {
  if (VOLUME.test(text)) return text;
  throw usageError(
    `lv: ${quoted(text)} is no name of a volume`,
    "USAGE",
    "Give a name that lvs shows",
  );
}

const WAIT_DEFAULT_S = 60;
const WAIT_MAX_S = 86_400;

/** Seconds, or nothing; in milliseconds. */
export function parseWait(text: string): number {
  const hint = "Give --wait=SECONDS";
  return (text === "" ? WAIT_DEFAULT_S : parseNumber(text, "wait", WAIT_MAX_S, hint)) * 1000;
}

/** A whole number from 0 to `maximum`. */
export function parseNumber(
  text: string,
  option: string,
  maximum: number,
  hint = `Give --${option} NUMBER`,
): number {
  const value = /^[0-9]{1,16}$/.test(text) ? Number(text) : Number.NaN;
  if (!(value <= maximum)) {
    const why = `${option}: ${quoted(text)} is not a whole number from 0 to ${maximum}`;
    throw usageError(why, "USAGE", hint);
  }
  return value;
}

export function parseTimeout(text: string): number {
  return parseNumber(text, "timeout", EVENT_TIMEOUT_MAX_MS, "Give --timeout MILLISECONDS");
}

function checkPath(text: string, path: string, option: string, maxBytes: number): void {
  if (text.startsWith("-")) {
    const hint = `Give --${option} ./${quoted(text).slice(1, -1)} if that is its name`;
    throw usageError(`${option}: ${quoted(text)} looks like an option`, "USAGE", hint);
  }
  if (text.includes(REPLACEMENT)) {
    const why = `${option}: ${quoted(text)} has bytes that are not UTF-8`;
    throw usageError(why, "USAGE", "Give another name, such as a link in UTF-8 that leads there");
  }
  if (Buffer.byteLength(path) > maxBytes) {
    const why = `${option}: ${quoted(text)} has more than ${maxBytes} bytes`;
    throw usageError(why, "USAGE", "Give a shorter path");
  }
}

/** Stands for standard input or output, in place of a path. */
export const STANDARD_STREAM = "-";

/** An absolute path for the daemon, which has another working directory. */
export function parsePath(text: string, option: string): string {
  const path = resolve(text);
  checkPath(text, path, option, PATH_LENGTH_MAX_BYTES);
  return path;
}

/** The path of a socket, unchanged: a relative one may be much shorter. */
export function parseSocket(text: string, option = "socket"): string {
  checkPath(text, text, option, SOCKET_PATH_MAX_BYTES);
  return text;
}

/** The stores of a snapshot, in order. */
export function parseStores(texts: readonly string[]): string[] {
  if (texts.length <= STORES_MAX) return texts.map(parseStore);
  const why = `file: ${texts.length} stores are given, a snapshot has ${STORES_MAX} at most`;
  throw usageError(why, "USAGE", "Give fewer --file");
}

function parseStore(text: string): string {
  return storeKindByWord(text) !== undefined ? text : parsePath(text, "file");
}

/** A range of sectors, FIRST:COUNT, in bytes. */
export function parseRange(text: string): ByteRange {
  const match = /^([0-9]{1,16}):([0-9]{1,16})$/.exec(text);
  const offset_bytes = Number(match?.[1]) * SECTOR_SIZE_BYTES;
  const length_bytes = Number(match?.[2]) * SECTOR_SIZE_BYTES;
  if (length_bytes === 0) {
    const why = `Invalid format of range string. ranges: ${quoted(text)} has no sector`;
    throw usageError(why, "USAGE", "Give a COUNT of at least 1");
  }
  if (!Number.isSafeInteger(offset_bytes + length_bytes)) {
    const why = `Invalid format of range string. ranges: ${quoted(text)} is not FIRST:COUNT`;
    throw usageError(why, "USAGE", "Give sectors of 512 bytes, as in --ranges 2048:8");
  }
  return { offset_bytes, length_bytes };
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
    throw usageError(`on-overflow: ${quoted(text)} is not a policy`, "USAGE", hint);
  }
  return { policy: "block-writes", timeout_ms };
}

/** One of a few words. */
export function parseFormat<Format extends string>(
  text: string,
  formats: readonly Format[],
): Format {
  const found = formats.find((format) => format === text);
  if (found !== undefined) return found;
  throw usageError(`format: ${quoted(text)} is none of ${formats.join(", ")}`);
}
