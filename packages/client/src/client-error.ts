/** The error that the client throws for every failure: it has a name of the catalogue. */

import { ERRORS, type ErrorBody, type ErrorName, isErrorName } from "@blksnap/api";
import { BlksnapError } from "@blksnap/errors";

/** `code` is a name of the catalogue, e.g. "NOT_ATTACHED"; INTERNAL for names of a newer daemon. */
export class BlksnapClientError extends BlksnapError<ErrorName> {
  declare readonly hint: string;

  constructor(code: ErrorName, message: string, details: Partial<ErrorBody> & ErrorOptions = {}) {
    const { errno = ERRORS[code].errno, hint = ERRORS[code].hint, cause } = details;
    super(code, message, { errno: errno ?? 0, hint, cause });
  }

  /** The error in the form of the daemon's responses. */
  toBody(): ErrorBody {
    const { code, errno, errnoName, message, hint } = this;
    const number = errno === 0 ? null : errno;
    return { name: code, errno: number, errno_name: errnoName ?? null, message, hint };
  }
}

interface ErrorOptions {
  readonly cause?: unknown;
}

/** The error in a daemon's response; undefined if the text is not one. */
export function errorFromAnswer(text: string): BlksnapClientError | undefined {
  let body: Partial<ErrorBody> | undefined;
  try {
    body = (JSON.parse(text) as { error?: Partial<ErrorBody> } | null)?.error;
  } catch {
    return undefined;
  }
  if (body === undefined || typeof body.message !== "string") return undefined;
  return new BlksnapClientError(
    isErrorName(body.name) ? body.name : "INTERNAL",
    body.message,
    body,
  );
}

/** A failure of the connection, by name, with advice. */
export function connectionError(
  cause: Error & { code?: string },
  path: string,
): BlksnapClientError {
  switch (cause.code) {
    case "ENOENT":
    case "ECONNREFUSED": {
      const why = cause.code === "ENOENT" ? "there is no socket" : "no program listens";
      return new BlksnapClientError("DAEMON_NOT_RUNNING", `no daemon at ${path}: ${why}`, {
        cause,
      });
    }
    case "EACCES":
    case "EPERM":
      return new BlksnapClientError("SOCKET_NOT_PERMITTED", `may not use ${path}`, { cause });
    case "ECONNRESET":
    case "EPIPE":
      return new BlksnapClientError("CONNECTION_LOST", "the daemon closed the connection", {
        cause,
      });
    default:
      return new BlksnapClientError("SOCKET_FAILED", `can't use ${path}: ${cause.message}`, {
        cause,
      });
  }
}
