/** The slice of kept-back discards that is on its way to the original: one at a time. */

export class KeptSlice {
  inFlight: boolean = false;
  /** The range, as columns of one row: what CBT map and journals read. */
  readonly offsetBytes: Float64Array = new Float64Array(1);
  readonly lengthBytes: Float64Array = new Float64Array(1);
  /** Something else changed the original meanwhile: it counts as changed, not as discarded. */
  isMet: boolean = false;
}
