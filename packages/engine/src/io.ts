/**
 * The port between the engine and its host.
 *
 * The call named with each question (submit...) answers it later, exactly once, and never from inside the question;
 * ZERO runs are the one exception. completeFront, completeImage, onDrained and onAreaClosed end an event: the host may
 * call the engine from inside them, but not from inside the others. An exception of the host leaves the engine's call
 * that led to it, after all other requests have continued.
 */

export interface EngineIo {
  /**
   * Issue front request `tag` to the original as it is: op, offset and length from `engine.front`.
   * Answer: `engine.onOriginalDone(tag, result)`. An exception means that nothing was issued; a write
   * ends with -EIO then.
   */
  submitOriginal(tag: number): void;
  /**
   * Discard the range of `engine.keptSlice` on the original: a part of the discards that were held back. Treat it as a
   * write: a journal of changes has to record it first.
   * Answer: `engine.onKeptDone(result)`.
   */
  submitKept(): void;
  /** End front request `tag`. `result`: bytes for READ and WRITE, 0 for others, or -errno. */
  completeFront(tag: number, result: number): void;
  /** End image request `tag`. `result`: bytes for READ and WRITE, 0 for others, or -errno. */
  completeImage(tag: number, result: number): void;
  /**
   * Copy blocks to a slot, through the copy window of tag `copies.bufferTag` of the queue
   * `copies.bufferOwner`, at `copies.bufferOffsetBytes`. CopyKind.OLD: read `copies.lengthBytes`
   * from the original at chunk `copies.chunk`, block `copies.blockStart`, then write them to the same
   * place in slot `copies.slot`. CopyKind.ZERO: fill with zero instead of reading.
   * `copies.mode`: if it is CopyMode.APART, the slot may be written only after `engine.onCopyRead`, together with what
   * that call submits. If it is BEHIND, the copy window has the old data already: nothing is read, and the host calls
   * onCopyRead from inside. If the map has places, a tag's place is its copy window, until a copy of the tag is late.
   * Answer: `engine.onCopyDone(copyId, result, fault)`. A short read or write is a failed one (-EIO);
   * `fault` (CopyFault) says which side failed, the read if both did. Before that
   * `engine.onCopyRead(copyId)` says that the window is filled, and the store's bound begins.
   */
  submitCopy(copyId: number): void;
  /**
   * A part of image request `runs.tag`: `runs.kind`, `runs.lengthBytes` at `runs.offsetInChunkBytes`
   * of chunk `runs.chunk` or of slot `runs.slot`, from or to the tag's data buffer at
   * `runs.bufferOffsetBytes`. A read of the original may continue into the chunks that follow.
   * Answer: `engine.onRunDone(runId, result)`.
   */
  submitRun(runId: number): void;
  /**
   * The slot pool is at or below its low-water mark. Not called again before `area.grantSlots` or `area.denySlots`
   * has answered.
   */
  requestSlots(wanted: number): void;
  /**
   * Allocate memory for the slice of the area's map: `map.slices.ranges(slice)` of its file. Existing content must
   * stay. Not called for maps that have all their memory from the beginning. Several slices may be asked for at a time,
   * each once until `area.grantMemory` or `area.denyMemory` answers; after onAreaClosed() no answer is expected.
   */
  requestMapSlice(slice: number): void;
  /** The slot is no longer used: the image's reader released its chunk. */
  freeSlot(slot: number): void;
  /**
   * Writes wait for room now, and none did before (OverflowPolicy.BLOCK_WRITES). Call `area.tick()` at even intervals
   * from now on, as long as `area.blockedWrites` is not 0.
   */
  onWritesBlocked(): void;
  /** After hold(): no write and no slice of kept-back discards is in flight to the original. */
  onDrained(): void;
  /** The first block of the area was lost, because of `errno` (positive). Once per area. */
  onAreaFault(errno: number): void;
  /**
   * The copy has passed its bound, and its request continues without it. The host still has to answer it; until then
   * the copy keeps its slot and its copy window: the tag needs another one.
   */
  onCopyLate(copyId: number): void;
  /** As onCopyLate; the run's image tag needs another data buffer after its request has ended. */
  onRunLate(runId: number): void;
  /** The store has late I/O, and gets no more from now on. See DiffAreaOptions.storeShift. */
  onStoreHung(store: number): void;
  /** All late I/O of the store has been answered. */
  onStoreAnswered(store: number): void;
  /**
   * After dropArea(): nothing in flight uses the area or its map. Its slots are unused, too, except by late copies and
   * runs if `copies.lateCount` or `runs.lateCount` is not 0.
   */
  onAreaClosed(): void;
}
