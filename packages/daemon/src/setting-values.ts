/** Validates values of settings, from a command line or a file. */
import {
  type ChoiceSetting,
  type NumberSetting,
  parseTcpAddress,
  type Setting,
} from "@blksnap/api";
import { pino } from "pino";

/** Longest part of a mistyped value in a message. */
const QUOTED_MAX = 64;

function quoted(value: unknown): string {
  const text = typeof value === "object" ? JSON.stringify(value) : String(value);
  return `'${text.slice(0, QUOTED_MAX)}'`;
}

/** The problem of a number; `typed` is its text. */
export function numberProblem(
  setting: NumberSetting,
  value: number,
  typed: unknown = value,
): string | undefined {
  const { least, most, multipleOf = 1 } = setting;
  if (!(Number.isInteger(value) && value >= least && value <= most)) {
    return `${quoted(typed)} is not a whole number from ${least} to ${most}`;
  }
  return value % multipleOf === 0 ? undefined : `${value} is not a multiple of ${multipleOf}`;
}

export function levelProblem(level: string): string | undefined {
  return Object.hasOwn(pino.levels.values, level) ? undefined : `${quoted(level)} is not a level`;
}

export function choiceProblem({ choices }: ChoiceSetting, value: unknown): string | undefined {
  if (typeof value === "string" && choices.includes(value)) return undefined;
  return `${quoted(value)} is none of ${choices.join(", ")}`;
}

export function addressProblem(value: unknown): string | undefined {
  if (typeof value === "string" && parseTcpAddress(value) !== undefined) return undefined;
  return `${quoted(value)} is not an address such as 192.0.2.1:10809 or [2001:db8::1]:10809`;
}

/** The problem of a value of any type. */
export function settingProblem(setting: Setting, value: unknown): string | undefined {
  switch (setting.type) {
    case "flag":
      return typeof value === "boolean" ? undefined : `${quoted(value)} is neither true nor false`;
    case "path":
      if (typeof value !== "string") return `${quoted(value)} is not a string`;
      return value === "" ? "is empty" : undefined;
    case "choice":
      return choiceProblem(setting, value);
    case "address":
      return addressProblem(value);
    case "level":
      return typeof value === "string" ? levelProblem(value) : `${quoted(value)} is not a string`;
    case "count":
    case "bytes":
    case "ms":
      return numberProblem(setting, typeof value === "number" ? value : Number.NaN, value);
  }
}
