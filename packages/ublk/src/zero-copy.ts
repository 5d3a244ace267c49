/** Decides which devices pass pages of their requests on without a copy. */
import { UblkFeature } from "./abi.js";
import type { DeviceParams } from "./layout.js";

/**
 * Features of a device whose requests have registered pages (Linux 6.16). USER_COPY is for those that cannot be
 * registered. Used only with Linux 7.0, which BATCH_IO indicates: before, the end of a server with such requests
 * could use freed memory, or leak references (fixed by c5c5eb24ed61 and daa24603d9f0).
 */
const ZERO_COPY_FEATURES: number = UblkFeature.AUTO_BUF_REG | UblkFeature.USER_COPY;

/** Largest request by default: each one of a queue has a buffer of this size. */
export const MAX_IO_BYTES: number = 512 * 1024;
/** With zero copy there are no buffers, and a long request has less work if it is not cut. */
export const ZERO_COPY_IO_BYTES: number = 1024 * 1024;

/** Whether a kernel that offers these features can serve devices with ZERO_COPY_FEATURES. */
export function offersZeroCopy(features: number): boolean {
  const needed = ZERO_COPY_FEATURES | UblkFeature.BATCH_IO;
  return (features & needed) === needed;
}

/** ZERO_COPY_FEATURES if wanted, the kernel has them, and the file accepts pages; else 0. */
export function zeroCopyFeatures(
  isWanted: boolean,
  { features }: { readonly features: number },
  { pageAlignmentBytes }: DeviceParams,
): number {
  const isThere = offersZeroCopy(features) && pageAlignmentBytes !== undefined;
  return isWanted && isThere ? ZERO_COPY_FEATURES : 0;
}

/** Whether a device with these features has zero copy. */
export function isZeroCopied({ features }: { readonly features: number }): boolean {
  return (features & UblkFeature.AUTO_BUF_REG) !== 0;
}
