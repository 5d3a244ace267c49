/** Results of io_uring for requests that it could not start; the file itself has not failed. */
import { EAGAIN, ECANCELED, ENOMEM } from "@blksnap/errors";

/**
 * No memory for it (-ENOMEM, -EAGAIN), or no thread (-ECANCELED): it may be submitted again.
 * @param result of a completion
 */
export function isRingShort(result: number): boolean {
  return result === -ECANCELED || result === -ENOMEM || result === -EAGAIN;
}
