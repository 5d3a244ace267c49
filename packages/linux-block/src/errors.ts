import { BlksnapError } from "@blksnap/errors";

/** Stable names of what can go wrong in this package. */
export type LinuxBlockErrorCode =
  /** It cannot be found out which devices a path or device lies on. */
  | "STACK_UNKNOWN"
  /** There is no such device or file. */
  | "DEVICE_NOT_FOUND"
  /** A device-mapper node that no second one can be made of. */
  | "NODE_NOT_CLONABLE"
  /** The device mapper has refused. */
  | "DEVICE_MAPPER_FAILED"
  /** An exchange of tables that the kernel was not asked for: a suspension of the node is another program's. */
  | "EXCHANGE_NOT_BEGUN"
  /** What a path lies on does not answer. */
  | "DEVICE_FAILED"
  /** A file system that has to be frozen is not. */
  | "FREEZE_FAILED"
  /** Freezing took longer than it may, or did not hold for as long as it should. */
  | "FREEZE_TIMEOUT";

/** Every error that this package throws. */
export class LinuxBlockError extends BlksnapError<LinuxBlockErrorCode> {}
