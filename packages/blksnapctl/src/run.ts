/** Runs one command, with its surroundings handed in. */
import { readFileSync } from "node:fs";
import { ERRORS } from "@blksnap/api";
import { BlksnapClient } from "@blksnap/client";
import type { Scanned } from "./argv.js";
import { errorLine, namedError } from "./output.js";
import { parseArguments, scan } from "./parse.js";
import { parseSocket } from "./values.js";
import type { Context, Environment, Given } from "./verb.js";

export interface Surroundings {
  readonly environment: Environment;
  /** Width of the terminal; undefined where the output goes elsewhere. */
  readonly columns: number | undefined;
  writeOut(text: string | Uint8Array): void;
  writeError(text: string): void;
  untilInterrupted(): AbortSignal;
}

/** The word with which the completion script begins what it asks. */
const COMPLETIONS_WANTED = "--get-yargs-completions";

function ownVersion(): string {
  const manifest = readFileSync(new URL(import.meta.resolve("blksnapctl/package.json")), "utf8");
  return (JSON.parse(manifest) as { version: string }).version;
}

function contextFor(given: Given, surroundings: Surroundings): Omit<Context, "notAllWell"> {
  const { environment, columns, writeOut, untilInterrupted } = surroundings;
  const option = given.one("socket");
  const socket = option === undefined ? environment.BLKSNAP_SOCKET : parseSocket(option);
  const isColoured = columns !== undefined && !environment.NO_COLOR;
  return {
    client: new BlksnapClient(socket ? { socketPath: socket } : {}),
    json: given.has("json"),
    environment,
    columns,
    bold: (text) => (isColoured ? `\x1b[1m${text}\x1b[0m` : text),
    print: writeOut,
    printJson: (document) => writeOut(`${JSON.stringify(document)}\n`),
    untilInterrupted,
  };
}

/** Answers the exit status. */
async function runScanned(scanned: Scanned, surroundings: Surroundings): Promise<number> {
  const parsed = parseArguments(scanned);
  let status = 0;
  switch (parsed.wanted) {
    case "verb": {
      const runVerb = await parsed.verb.load();
      const notAllWell = (): void => {
        status = 1;
      };
      await runVerb({ ...contextFor(parsed.given, surroundings), notAllWell }, parsed.given);
      break;
    }
    case "help": {
      const { printHelp } = await import("./help.js");
      await printHelp(parsed.verb, ownVersion(), surroundings.columns);
      break;
    }
    case "completion": {
      const { printCompletionScript } = await import("./help.js");
      await printCompletionScript(ownVersion());
      break;
    }
    case "version":
      surroundings.writeOut(`${ownVersion()}\n`);
  }
  return status;
}

/**
 * The exit status: 0 done, 1 failed, 2 asked for in a wrong way. A failure is one line on standard
 * error; with --json standard output gets `{"error":...}` besides.
 */
export async function run(argv: readonly string[], surroundings: Surroundings): Promise<number> {
  if (argv.includes(COMPLETIONS_WANTED)) {
    const { printCompletions } = await import("./help.js");
    await printCompletions(argv, ownVersion());
    return 0;
  }
  const scanned = scan(argv);
  try {
    return await runScanned(scanned, surroundings);
  } catch (caught) {
    const error = namedError(caught);
    if (scanned.values.has("json")) {
      surroundings.writeOut(`${JSON.stringify({ error: error.toBody() })}\n`);
    }
    surroundings.writeError(errorLine(error, scanned.verb?.name));
    return ERRORS[error.code].exit_status;
  }
}
