import { ERRORS, type ErrorName } from "@blksnap/api";
import { BlksnapError, errnoNameOf, messageOf } from "@blksnap/errors";

interface BackupErrorOptions {
  /** Overrides the catalogue's advice. */
  readonly hint?: string;
  readonly cause?: unknown;
}

/** Errors of this package; `code` is a name of the catalogue of `@blksnap/api`. */
export class BackupError extends BlksnapError<ErrorName> {
  declare readonly hint: string;

  constructor(code: ErrorName, message: string, options: BackupErrorOptions = {}) {
    const { errno, hint } = ERRORS[code];
    super(code, message, { errno: errno ?? 0, hint: options.hint ?? hint, cause: options.cause });
  }
}

const FULL: readonly string[] = ["ENOSPC", "EDQUOT", "EFBIG"];

/** A failed operation on a target, as a named error. */
export function targetError(what: string, path: string, cause: unknown): BackupError {
  if (cause instanceof BackupError) return cause;
  const name = errnoNameOf(cause);
  const text = `can't ${what} ${path}: ${messageOf(cause)}`;
  if (FULL.includes(name)) return new BackupError("TARGET_FULL", text, { cause });
  if (name === "EBUSY") return new BackupError("TARGET_IN_USE", text, { cause });
  return new BackupError("TARGET_FAILED", text, { cause });
}

export function abortedError(): BackupError {
  return new BackupError("ABORTED", "it was interrupted", {
    hint: "Run it again; what was already written is reused",
  });
}
