/** Options of a simulated tracker, and deliberate mistakes. */

/** Deliberate mistakes that the judge must find. */
export type Plant =
  | "none"
  | "admit before the commit"
  | "durable bits kept over a take"
  | "blocks ahead kept over a rotation"
  | "mirror that misses a commit"
  | "checkpoint older than the mirror"
  | "take told before it is on record"
  | "medium that does not sync"
  | "image writes not on record"
  | "lost data not waited for";

export interface SimOptions {
  readonly blockCount: number;
  readonly logSectors: number;
  readonly plant: Plant;
  /** Chance of a failing operation on the medium. */
  readonly faultChance: number;
}
