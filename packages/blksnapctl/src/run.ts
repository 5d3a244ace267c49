/** Runs one command, with its surroundings handed in. */
import { readFileSync } from "node:fs";
import { ERRORS } from "@blksnap/api";
import { BlksnapClient } from "@blksnap/client";
import { verbs } from "./catalog.js";
import { errorLine, namedError } from "./output.js";
import { parseArguments } from "./parse.js";
import type { Context, Environment, Given } from "./verb.js";

export interface Surroundings {
  readonly environment: Environment;
  /** Width of the terminal; undefined where the output goes elsewhere. */
  readonly columns: number | undefined;
  writeOut(text: string | Uint8Array): void;
  writeError(text: string): void;
  untilInterrupted(): AbortSignal;
}

function ownVersion(): string {
  const manifest = readFileSync(new URL("../package.json", import.meta.url), "utf8");
  return (JSON.parse(manifest) as { version: string }).version;
}

function contextFor(given: Given, surroundings: Surroundings): Context {
  const { environment, columns, writeOut, untilInterrupted } = surroundings;
  const socket = given.one("socket") ?? environment.BLKSNAP_SOCKET;
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

/** Whether the error is wanted as JSON, also where the arguments could not be parsed. */
function wantsJson(argv: readonly string[]): boolean {
  return argv.some((word) => word === "-j" || (word.length > 2 && "--json".startsWith(word)));
}

/**
 * The exit status: 0 done, 1 failed, 2 asked for in a wrong way. A failure is one line on standard
 * error; with --json standard output gets `{"error":...}` besides.
 */
export async function run(argv: readonly string[], surroundings: Surroundings): Promise<number> {
  let verb = verbs.find(({ name }) => argv.includes(name))?.name;
  try {
    const parsed = await parseArguments(argv, ownVersion());
    if (parsed === undefined) return 0;
    verb = parsed.verb.name;
    const runVerb = await parsed.verb.load();
    await runVerb(contextFor(parsed.given, surroundings), parsed.given);
    return 0;
  } catch (caught) {
    const error = namedError(caught);
    if (wantsJson(argv)) {
      surroundings.writeOut(`${JSON.stringify({ error: error.toBody() })}\n`);
    }
    surroundings.writeError(errorLine(error, verb));
    return ERRORS[error.code].exit_status;
  }
}
