import { BlksnapError } from "@blksnap/errors";

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
