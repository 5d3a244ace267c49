import { BlksnapError, errnoNumber } from "@blksnap/errors";

/** Stable names of this package's errors. */
export type LinuxBlockErrorCode =
  /** The devices below a path or device cannot be determined. */
  | "STACK_UNKNOWN"
  /** There is no such device or file. */
  | "DEVICE_NOT_FOUND"
  /** A device-mapper node that cannot be cloned. */
  | "NODE_NOT_CLONABLE"
  /** The device mapper has refused. */
  | "DEVICE_MAPPER_FAILED"
  /** The kernel was not asked for an exchange of tables: another program has suspended the node. */
  | "EXCHANGE_NOT_BEGUN"
  /** The file system or device below a path does not answer. */
  | "DEVICE_FAILED"
  /** A file system that has to be frozen cannot be. */
  | "FREEZE_FAILED"
  /** Freezing exceeded its time limit, or did not last. */
  | "FREEZE_TIMEOUT";

/** Base of all errors of this package. */
export class LinuxBlockError extends BlksnapError<LinuxBlockErrorCode> {}

/** Why a path leads to nothing: it may also be out of reach, as behind a folder that this user may not enter. */
export function deviceNotFound(path: string, cause: unknown): LinuxBlockError {
  const { code = "EIO" } = cause as NodeJS.ErrnoException;
  const isMissing = code === "ENOENT" || code === "ENOTDIR";
  const what = `${path} ${isMissing ? "does not exist" : "cannot be looked up"} (${code})`;
  const options = { cause, errno: errnoNumber(code) };
  if (code !== "EACCES") return new LinuxBlockError("DEVICE_NOT_FOUND", what, options);
  const hint = "Let the daemon's user enter the folders above it";
  return new LinuxBlockError("DEVICE_NOT_FOUND", what, { ...options, hint });
}
