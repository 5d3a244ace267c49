/**
 * The life of one I/O between a slot and the original or a buffer, and its time limit.
 *
 *     LIVE ──answer──────────────────────────────────> FREE
 *       └──bound passed──> LATE ──answer──────────────> FREE     the store has answered
 *                            └──area closed──> ORPHANED ──answer──> FREE
 *
 * A request does not wait for its late I/O. The id, the slot and the buffer of late I/O stay taken until the answer
 * comes: the store may still write or read there.
 *
 * The bound counts the host's ticks. It applies only to the store's part: while a copy reads the original there is no
 * bound, because an original that hangs would hang the write as well. Once the area is dropped, it applies to
 * everything.
 */
export const IoState = { FREE: 0, LIVE: 1, LATE: 2, ORPHANED: 3 } as const;

export const IoStage = {
  /** The original is being read. */
  READING: 0,
  /** The slot is being read or written. */
  STORING: 1,
  /** The data is in the slot; the host waits until that is recorded, under a bound of its own. */
  RECORDING: 2,
} as const;
