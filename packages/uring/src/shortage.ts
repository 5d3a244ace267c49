/** What io_uring answers where it could not carry out a request, and the file behind has said nothing. */
import { EAGAIN, ECANCELED, ENOMEM } from "@blksnap/errors";

/**
 * No memory for it (-ENOMEM, -EAGAIN), or no thread (-ECANCELED): it may be submitted once more.
 * @param result of a completion
 */
export function isRingShort(result: number): boolean {
  return result === -ECANCELED || result === -ENOMEM || result === -EAGAIN;
}
