import { numbersWithoutUnit } from "../../api/dist/testing/units.js";

/** Counts in blksnapctl's output that the API does not have. */
const OWN_COUNTS = /\.(chunks|kept_chunks|points|removed_chunks) = \d+$/;

/** Locations in a document of blksnapctl of numbers that do not name their unit. */
export function unitProblems(document: unknown, path: string): string[] {
  return numbersWithoutUnit(document, path).filter((problem) => !OWN_COUNTS.test(problem));
}
