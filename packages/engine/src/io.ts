/**
 * What the engine asks of its host, and tells it.
 *
 * Every question (submit...) is answered later by the call named with it, exactly once, and never
 * from inside the asking call; ZERO runs are the one exception. completeFront, completeImage,
 * onDrained and onAreaClosed end an event: the host may call the engine from inside these. From
 * inside the others it may not. What a host throws comes out of the engine's call that led to it,
 * after all other requests have continued.
 */

export interface EngineIo {
  /**
   * Issue front request `tag` to the original as it is: op, offset and length from `engine.front`.
   * Answer: `engine.onOriginalDone(tag, result)`. An exception means that nothing was issued; a write
   * ends with -EIO then.
   */
  submitOriginal(tag: number): void;
  /**
   * Discard the range of `engine.keptSlice` on the original: a part of the discards that were kept
   * back. It is as good as a write: a journal of changes has to know of it first.
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
   * `copies.mode`: where it is CopyMode.APART, the slot is not written before the window is filled, and goes down with
   * what `engine.onCopyRead` submits; where it is BEHIND, the copy window has the old data already: nothing is read, and onCopyRead is called from
   * inside. A tag's copy window of a map with places is the tag's place as long as no copy of it is late.
   * Answer: `engine.onCopyDone(copyId, result, fault)`. A short read or write is a failed one (-EIO);
   * `fault` (CopyFault) says which side failed, the read if both did. Before that
   * `engine.onCopyRead(copyId)` says that the window is filled, and the store's bound begins.
   */
  submitCopy(copyId: number): void;
  /**
   * A part of image request `runs.tag`: `runs.kind`, `runs.lengthBytes` at `runs.offsetInChunkBytes`
   * of chunk `runs.chunk` or of slot `runs.slot`, from or to the tag's data buffer at
   * `runs.bufferOffsetBytes`. A read of the original may continue into the chunks that follow. Answer: `engine.onRunDone(runId, result)`.
   */
  submitRun(runId: number): void;
  /**
   * The slot pool is at or below its low-water mark. Called at most once until answered by
   * `area.grantSlots` or `area.denySlots`.
   */
  requestSlots(wanted: number): void;
  /**
   * Give the slice of the area's map memory: allocate `map.slices.ranges(slice)` of its file, what is there
   * already stays as it is. Never asked of a map that has all from the beginning. Several slices may be asked for,
   * each once until answered by `area.grantMemory` or `area.denyMemory`; after onAreaClosed() no answer is wanted.
   */
  requestMapSlice(slice: number): void;
  /** The slot is not used any more: the image's reader released its chunk. */
  freeSlot(slot: number): void;
  /**
   * Writes wait for room now, and none did before (OverflowPolicy.BLOCK_WRITES). From now on
   * `area.tick()` is to be called at even intervals, for as long as `area.blockedWrites` is not 0.
   */
  onWritesBlocked(): void;
  /** After hold(): no write and no slice of kept-back discards is in flight to the original. */
  onDrained(): void;
  /** The first block of the area was lost, because of `errno` (positive). Once per area. */
  onAreaFault(errno: number): void;
  /**
   * The copy has passed its bound, and its request continues without it. It is still to be answered; until
   * then its slot and the window that it uses belong to it: the tag needs another window.
   */
  onCopyLate(copyId: number): void;
  /** As onCopyLate; what the run's image tag needs is another data buffer, when its request has ended. */
  onRunLate(runId: number): void;
  /** The store has something late, from now on it gets no I/O at all. See DiffAreaOptions.storeShift. */
  onStoreHung(store: number): void;
  /** All that was late of the store has been answered. */
  onStoreAnswered(store: number): void;
  /**
   * After dropArea(): nothing in flight refers to the area or its map. Of its slots nothing but late
   * copies and runs, if `copies.lateCount` or `runs.lateCount` is not 0.
   */
  onAreaClosed(): void;
}
