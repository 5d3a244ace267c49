/** The slice of kept-back discards that is in flight to the original: one at a time. */

export class KeptSlice {
  inFlight: boolean = false;
  /** The range, as columns of one row: the form that CBT map and journals read. */
  readonly offsetBytes: Float64Array = new Float64Array(1);
  readonly lengthBytes: Float64Array = new Float64Array(1);
  /** The original was changed otherwise meanwhile: the slice counts as changed, not as discarded. */
  isDisturbed: boolean = false;
}
