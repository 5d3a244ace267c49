/**
 * The life of one I/O between a slot and the original or a buffer, and its time limit.
 *
 *     LIVE ──answer──────────────────────────────────> FREE
 *       └──bound passed──> LATE ──answer──────────────> FREE     the store has answered
 *                            └──area closed──> ORPHANED ──answer──> FREE
 *
 * The request that it was for does not wait for a late one. Its id, its slot and its buffer stay
 * taken until the answer comes: the store may still write or read there.
 *
 * The bound counts ticks of the host. It holds for the store's part alone: while a copy reads the
 * original it has none, because an original that hangs would hang the write as well. Once the area is
 * dropped it holds for everything.
 */
export const IoState = { FREE: 0, LIVE: 1, LATE: 2, ORPHANED: 3 } as const;

export const IoStage = {
  /** The original is being read. */
  READING: 0,
  /** The slot is being read or written. */
  STORING: 1,
  /** The data is in the slot; the host waits for a record of it, under a bound of its own. */
  RECORDING: 2,
} as const;
