/** Errors with a name of the catalogue, and the form in which any error is sent to a client. */

import { BlksnapError, errnoNumber } from "@blksnap/errors";
import { ERRORS, type ErrorName, isErrorName } from "./errors.js";
import type { ErrorBody } from "./types.js";

export interface ControlErrorOptions {
  readonly cause?: unknown;
  /** Overrides the catalogue's errno where the system gave a better one, e.g. "ENOSPC". */
  readonly errnoName?: string;
  /** Overrides the catalogue's advice. */
  readonly hint?: string;
}

/** An operation failed in a way that the catalogue knows. */
export class ControlError extends BlksnapError<ErrorName> {
  /** `message` says what failed and why, without advice and without a full stop at the end. */
  constructor(code: ErrorName, message: string, options: ControlErrorOptions = {}) {
    const { errnoName: name, hint, cause } = options;
    super(code, message, { errno: errnoNumber(name ?? "") ?? 0, hint, cause });
  }
}

export interface ErrorAnswer {
  readonly httpStatus: number;
  readonly error: ErrorBody;
}

function stringField(error: object, field: string): string | undefined {
  const value = (error as Record<string, unknown>)[field];
  return typeof value === "string" ? value : undefined;
}

/** The name under which an error is reported: its `code` if the catalogue has it, else INTERNAL. */
export function errorNameOf(error: unknown): ErrorName {
  const code = error instanceof Error ? stringField(error, "code") : undefined;
  return isErrorName(code) ? code : "INTERNAL";
}

/** What a client receives for any thrown value. */
export function answerFor(error: unknown): ErrorAnswer {
  const name = errorNameOf(error);
  const entry = ERRORS[name];
  let { errno, errno_name } = entry;
  let hint = entry.hint;
  if (error instanceof Error) {
    const given = stringField(error, name === "INTERNAL" ? "code" : "errnoName");
    const number = given === undefined ? undefined : errnoNumber(given);
    if (given !== undefined && number !== undefined) {
      errno = number;
      errno_name = given;
    }
    hint = (name === "INTERNAL" ? undefined : stringField(error, "hint")) ?? hint;
  }
  return {
    httpStatus: entry.http_status,
    error: {
      name,
      errno,
      errno_name,
      message: error instanceof Error && error.message !== "" ? error.message : "unknown failure",
      hint,
    },
  };
}
