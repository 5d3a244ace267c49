import { errnoNameOf } from "@blksnap/errors";
import { DiffStorageError } from "./errors.js";
import type { StoreSpace } from "./space.js";

/** Makes an error with what a failed preallocation needed and what was available. */
export function fullError(
  error: unknown,
  space: StoreSpace,
  slots: number,
  availableBytes: number | undefined,
): unknown {
  const name = errnoNameOf(error);
  if (name !== "ENOSPC" && name !== "EDQUOT") return error;
  const { path } = space.store;
  const neededBytes = slots * space.slotBytes;
  const there = availableBytes === undefined ? "" : `, ${availableBytes} bytes are available`;
  const text =
    `${path}: no space for ${neededBytes} more bytes of old data${there}; ` +
    "free space there, add a store on another disk, or set a smaller limit";
  return new DiffStorageError("STORE_FULL", text, {
    path,
    cause: error,
    neededBytes,
    ...(availableBytes === undefined ? {} : { availableBytes }),
  });
}
