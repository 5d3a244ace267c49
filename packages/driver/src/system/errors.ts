/** Translates errors of the packages below into the names that users of the daemon know. */
import type { ErrorName } from "@blksnap/api";
import { ControlError } from "@blksnap/api";
import { DiffStorageError, type DiffStorageErrorCode } from "@blksnap/diff-storage";
import { EngineError } from "@blksnap/engine";
import { EventQueueError } from "@blksnap/event-queue";
import { LinuxBlockError } from "@blksnap/linux-block";
import { UblkError, type UblkErrorCode } from "@blksnap/ublk";

const NAME_OF_UBLK_CODE: Readonly<Record<UblkErrorCode, ErrorName>> = {
  UBLK_MISSING: "UBLK_UNAVAILABLE",
  UBLK_NOT_PERMITTED: "DEVICE_NOT_PERMITTED",
  KERNEL_TOO_OLD: "UBLK_UNAVAILABLE",
  CONTROL_FAILED: "UBLK_FAILED",
  CONTROL_TIMEOUT: "NO_ANSWER",
  DEVICE_NODE_MISSING: "UBLK_FAILED",
  BACKING_NOT_FOUND: "DEVICE_NOT_FOUND",
  BACKING_BUSY: "DEVICE_BUSY",
  BACKING_UNSUPPORTED: "DEVICE_NOT_BLOCK",
  BACKING_FAILED: "DEVICE_FAILED",
  QUEUE_FAILED: "UBLK_FAILED",
  PARTITIONS_FAILED: "UBLK_FAILED",
};

const NAME_OF_STORAGE_CODE: Readonly<Record<DiffStorageErrorCode, ErrorName>> = {
  STORE_NOT_FOUND: "STORE_NOT_FOUND",
  STORE_KIND_UNSUPPORTED: "STORE_INVALID",
  STORE_TOO_SMALL: "STORE_FULL",
  STORE_FULL: "STORE_FULL",
  STORE_BUSY: "STORE_BUSY",
  STORE_READ_ONLY: "STORE_NOT_PERMITTED",
  STORE_PERMISSION: "STORE_NOT_PERMITTED",
  STORE_NOT_GROWABLE: "STORE_FAILED",
  STORE_IO: "STORE_FAILED",
  STORE_ON_MEMBER: "STORE_ON_DEVICE",
  STORE_COUNT_INVALID: "STORE_INVALID",
  LIMIT_INVALID: "LIMIT_INVALID",
  LIMIT_REQUIRED: "LIMIT_INVALID",
  ARGUMENT_INVALID: "REQUEST_INVALID",
  SLOT_INVALID: "INTERNAL",
  STORE_TIMEOUT: "STORE_FAILED",
  ABORTED: "ABORTED",
};

const NAME_OF_ENGINE_CODE: Readonly<Record<string, ErrorName>> = {
  CBT_BUSY: "CBT_BUSY",
  CBT_CORRUPTED: "CBT_CORRUPTED",
  CBT_RANGE: "CBT_RANGE",
  RANGE: "MARK_RANGE",
  MAP_TOO_LARGE: "OUT_OF_MEMORY",
};

const MAY_WRITE = "Give the daemon's user the right to read and write it";
/** Why a backing file could not be opened, where that is no failure of its device. */
const REFUSALS: Readonly<Record<string, readonly [name: ErrorName, hint?: string]>> = {
  EACCES: ["DEVICE_NOT_PERMITTED", MAY_WRITE],
  EPERM: ["DEVICE_NOT_PERMITTED", MAY_WRITE],
  EROFS: ["DEVICE_READ_ONLY"],
};

function ofUblk(error: UblkError): ControlError {
  const { code, errnoName } = error;
  const refusal = code === "BACKING_FAILED" ? REFUSALS[errnoName ?? ""] : undefined;
  const [name, hint] = refusal ?? [NAME_OF_UBLK_CODE[code]];
  return renamed(name, error, errnoName, hint);
}

/** The same failure as a ControlError; unknown errors are returned unchanged. */
export function asControlError(error: unknown): unknown {
  if (error instanceof UblkError) {
    return ofUblk(error);
  }
  if (error instanceof DiffStorageError) {
    return renamed(NAME_OF_STORAGE_CODE[error.code], error, error.errnoName);
  }
  if (error instanceof LinuxBlockError && error.code === "STACK_UNKNOWN") {
    return renamed("STORE_INVALID", error, error.errnoName);
  }
  if (error instanceof EventQueueError && error.code === "TOO_MANY_READERS") {
    return renamed("TOO_MANY_READERS", error);
  }
  if (error instanceof EngineError) {
    const name = NAME_OF_ENGINE_CODE[error.code];
    if (name !== undefined) return renamed(name, error);
  }
  if (error instanceof Error && (error as { code?: unknown }).code === "REACTOR_FULL") {
    return renamed("REACTOR_FULL", error, "EMFILE");
  }
  return error;
}

function renamed(name: ErrorName, error: Error, errno?: string, hint?: string): ControlError {
  const options = {
    ...(errno === undefined ? {} : { errnoName: errno }),
    ...(hint === undefined ? {} : { hint }),
  };
  return new ControlError(name, error.message, { cause: error, ...options });
}

/** Rejects with the API's names for errors of the packages below. */
export async function named<Value>(work: Promise<Value>): Promise<Value> {
  try {
    return await work;
  } catch (error) {
    throw asControlError(error);
  }
}
