import { numbersWithoutUnit } from "../../api/dist/testing/units.js";

/** Counts that the command line tells, and the API does not. */
const OWN_COUNTS = /\.(chunks|kept_chunks|points|removed_chunks) = \d+$/;

/** Where a document that blksnapctl prints has a number that does not say its unit. */
export function unitProblems(document: unknown, path: string): string[] {
  return numbersWithoutUnit(document, path).filter((problem) => !OWN_COUNTS.test(problem));
}
