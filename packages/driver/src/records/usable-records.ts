import type { Logger } from "pino";
import type { FoundRecord } from "./state-directory.js";

/** The values of the usable records; problems of the others are logged. */
export function usableRecords<Value>(
  found: readonly FoundRecord[],
  logger: Pick<Logger, "error">,
): Value[] {
  const values: Value[] = [];
  for (const one of found) {
    const { name: record, problem } = one;
    if (problem !== undefined) {
      logger.error({ record, problem }, `record ${record} is not used: ${problem}`);
      continue;
    }
    values.push(one.value as Value);
    if (one.instead === undefined) continue;
    const why = `the copy of record ${record} is used: ${one.instead}`;
    logger.error({ record, problem: one.instead }, why);
  }
  return values;
}
