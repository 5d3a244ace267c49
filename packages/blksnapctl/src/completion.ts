/** Shell completion: words of the catalogue, and names from the daemon. */
import { readdirSync } from "node:fs";
import { builtInOptions } from "./argv.js";
import { globalOptions, verbs } from "./catalog.js";
import { SNAPSHOT_FIELDS } from "./fields.js";
import type { OptionSpec, OptionSpecs, Verb } from "./verb.js";

/** Time limit of a completion. */
const TIMEOUT_MS = 500;

function blockDevices(): string[] {
  try {
    return readdirSync("/sys/class/block").map((name) => `/dev/${name}`);
  } catch {
    return [];
  }
}

async function quickClient() {
  const { BlksnapClient } = await import("@blksnap/client");
  return new BlksnapClient({ timeoutMs: TIMEOUT_MS });
}

async function images(): Promise<readonly string[]> {
  const status = await (await quickClient()).status().catch(() => undefined);
  return (
    status?.snapshots.flatMap(({ devices }) => devices.flatMap(({ image }) => image ?? [])) ?? []
  );
}

/** Values of an option; none if they are free text or files. */
async function valuesOf(option: string): Promise<readonly string[]> {
  switch (option) {
    case "id": {
      const known = await (await quickClient()).snapshotCollect().catch(() => []);
      return known.map(({ id }) => id);
    }
    case "device": {
      const status = await (await quickClient()).status().catch(() => undefined);
      const known = status?.trackers.flatMap(({ device, front }) => [device, front]) ?? [];
      return [...new Set([...known, ...blockDevices()])];
    }
    case "field":
      return SNAPSHOT_FIELDS;
    case "on-overflow":
      return ["break-snapshot", "fail-writes", "block-writes"];
    default:
      return [];
  }
}

function optionNamed(word: string, options: OptionSpecs): [string, OptionSpec] | undefined {
  return Object.entries(options).find(
    ([name, { short }]) => word === `--${name}` || (short !== undefined && word === `-${short}`),
  );
}

/** The option that expects the next word as its value; undefined if none does. */
function openOption(words: readonly string[], options: OptionSpecs): string | undefined {
  const at = words.findLastIndex((word) => word.startsWith("-"));
  const [name, option] = (at < 0 ? undefined : optionNamed(words[at]!, options)) ?? [];
  if (option?.value === undefined || option.optional === true) return undefined;
  return at === words.length - 1 || option.many === true ? name : undefined;
}

async function choices(before: readonly string[], current: string): Promise<readonly string[]> {
  const verb: Verb | undefined = verbs.find(({ name }) => name === before[0]);
  const options = { ...verb?.options, ...globalOptions, ...builtInOptions };
  const open = openOption(before, options);
  if (current.startsWith("-")) return Object.keys(options).map((name) => `--${name}`);
  if (open !== undefined) return await valuesOf(open);
  if (before.length === 0) return [...verbs.map(({ name }) => name), "help"];
  if (before[0] === "help") return verbs.map(({ name }) => name);
  if (verb?.name === "mount" && before.length === 1) return await images();
  if (verb?.name === "umount" && before.length === 1) return [];
  if (verb?.action !== undefined && before.length === 1) return verb.action.choices;
  return Object.keys(options).map((name) => `--${name}`);
}

/** @param words of the line after the program's name; the last one is unfinished */
export async function completions(words: readonly string[]): Promise<string[]> {
  const current = words.at(-1) ?? "";
  const found = await choices(words.slice(0, -1), current);
  return found.filter((choice) => choice.startsWith(current));
}
