/** Describes errors that other code has thrown, such as Node or a callback. */
import { errnoName, errnoNumber } from "./errno.js";

/** Name of the errno that an error carries, such as "ENOSPC"; "EIO" if it carries none. */
export function errnoNameOf(error: unknown): string {
  const { code, errno } = (error ?? {}) as { code?: unknown; errno?: unknown };
  if (typeof errno === "number" && errno !== 0) {
    const name = errnoName(errno);
    if (errnoNumber(name) !== undefined) return name;
  }
  const number = typeof code === "string" ? errnoNumber(code) : undefined;
  return number === undefined ? "EIO" : errnoName(number);
}

/** Text of an unknown error. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Text of a failed system call, preceded by the errno's name once. */
export function describeFailure(error: unknown): string {
  const name = errnoNameOf(error);
  let text = messageOf(error);
  while (text.startsWith(`${name}: `)) text = text.slice(name.length + 2);
  return `${name}: ${text}`;
}
