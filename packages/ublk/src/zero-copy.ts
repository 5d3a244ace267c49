/** Which devices pass pages of their requests on, and do not copy them. */
import { UblkFeature } from "./abi.js";
import type { DeviceParams } from "./layout.js";

/**
 * What a device has whose requests come with their pages registered (Linux 6.16). USER_COPY is for those that
 * cannot be. Asked for only where Linux 7.0 is, by BATCH_IO: before, the end of a server with such requests in
 * hand could use memory that was freed, or leave references behind (fixed by c5c5eb24ed61 and daa24603d9f0).
 */
const ZERO_COPY_FEATURES: number = UblkFeature.AUTO_BUF_REG | UblkFeature.USER_COPY;

/** Whether a kernel that offers these features can serve devices with ZERO_COPY_FEATURES. */
export function offersZeroCopy(features: number): boolean {
  const needed = ZERO_COPY_FEATURES | UblkFeature.BATCH_IO;
  return (features & needed) === needed;
}

/** ZERO_COPY_FEATURES where it is wanted, the kernel has them, and the file takes pages; else 0. */
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
