/**
 * Records of volumes that are away (tracker/live-returns.ts). Another version, or a user, may have written them:
 * incomplete ones are logged, and left alone.
 */
import type { LiveNode } from "@blksnap/linux-block";
import type { DriverContext } from "../context.js";
import { StateFile } from "./file-names.js";
import { usableRecords } from "./usable-records.js";

const REASONS = ["capacity_changed", "interrupted"] as const;
/** "major:minor". */
const NUMBER = /^[0-9]+:[0-9]+$/;

/** The reason of the new generation. */
export type NewGeneration = (typeof REASONS)[number];

export interface AwayRecord {
  readonly device: string;
  readonly live: LiveNode;
  readonly front: string;
  readonly reason: NewGeneration;
  readonly since: string;
  /** Attempts that no daemon has seen end; absent in records of older daemons. */
  readonly unended?: number;
}

/** The usable ones. */
export function readReturns({
  state,
  logger,
}: Pick<DriverContext, "state" | "logger">): AwayRecord[] {
  const found = state.readRecords(StateFile.returnRecord.prefix).map((one) => {
    if (one.problem !== undefined || isOf(one.name, one.value)) return one;
    return { name: one.name, problem: "it is not what such a record holds" };
  });
  return usableRecords<AwayRecord>(found, logger);
}

function isOf(name: string, value: unknown): value is AwayRecord {
  const { device, live, front, reason, since, unended = 0 } = fieldsOf(value);
  const node = fieldsOf(live);
  const texts = [device, front, since, node["name"], node["uuid"]];
  const isNumber = (one: unknown) => typeof one === "string" && NUMBER.test(one);
  return (
    texts.every((text) => typeof text === "string") &&
    isNumber(node["number"]) &&
    isNumber(node["clone"]) &&
    name === StateFile.returnRecord.name(node["number"] as string) &&
    REASONS.some((known) => known === reason) &&
    Number.isSafeInteger(unended) &&
    (unended as number) >= 0
  );
}

function fieldsOf(
  value: unknown,
): Partial<Record<keyof AwayRecord, unknown>> & Record<string, unknown> {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
}
