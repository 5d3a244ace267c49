/** What the shell offers at the Tab key: names from the daemon where an option wants one. */
import { readdirSync } from "node:fs";
import { BlksnapClient } from "@blksnap/client";

/** Nobody waits longer than this for a completion. */
const TIMEOUT_MS = 500;

type Done = (choices: string[]) => void;
type Filter = (onDone?: (error: Error | null, choices: string[] | undefined) => void) => void;

function blockDevices(): string[] {
  try {
    return readdirSync("/sys/class/block").map((name) => `/dev/${name}`);
  } catch {
    return [];
  }
}

async function choicesFor(option: string | undefined): Promise<string[] | undefined> {
  const client = new BlksnapClient({ timeoutMs: TIMEOUT_MS });
  switch (option) {
    case "--id":
    case "-i":
      return (await client.snapshotCollect().catch(() => [])).map(({ id }) => id);
    case "--device":
    case "-d": {
      const status = await client.status().catch(() => undefined);
      const known = status?.trackers.flatMap(({ device, front }) => [device, front]) ?? [];
      return [...new Set([...known, ...blockDevices()])];
    }
    case "--field":
      return ["image", "front", "error_code"];
    case "--on-overflow":
      return ["break-snapshot", "fail-writes", "block-writes"];
    default:
      return undefined;
  }
}

/** The completion function for yargs, in the form that can fall back to yargs' own choices. */
export function completions(current: string, _argv: unknown, ownChoices: Filter, done: Done): void {
  const words = process.argv.slice(process.argv.indexOf("--get-yargs-completions") + 1);
  const previous = words.at(current === "" && words.at(-1) !== "" ? -1 : -2);
  choicesFor(previous).then(
    (choices) => {
      if (choices === undefined) ownChoices((_error, own) => done(own ?? []));
      else done(choices.filter((choice) => choice.startsWith(current)));
    },
    () => done([]),
  );
}
