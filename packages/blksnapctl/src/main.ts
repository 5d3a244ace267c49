/** The command line of blksnap. */
import { readFileSync } from "node:fs";
import { ERRORS } from "@blksnap/api";
import { BlksnapClient } from "@blksnap/client";
import { verbs } from "./catalog.js";
import { errorLine, namedError, watchOutput } from "./output.js";
import { parseArguments } from "./parse.js";
import type { Context, Environment, Given } from "./verb.js";

function ownVersion(): string {
  const manifest = readFileSync(new URL("../package.json", import.meta.url), "utf8");
  return (JSON.parse(manifest) as { version: string }).version;
}

function untilInterrupted(): AbortSignal {
  const controller = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    // Only the first one is caught: a second ends the process whatever it waits for.
    process.once(signal, () => controller.abort());
  }
  return controller.signal;
}

function contextFor(given: Given): Context {
  const environment: Environment = process.env;
  const socket = given.one("socket");
  const isColoured = process.stdout.isTTY && !environment.NO_COLOR;
  return {
    client: new BlksnapClient(socket === undefined ? {} : { socketPath: socket }),
    json: given.has("json"),
    environment,
    columns: process.stdout.isTTY ? process.stdout.columns : undefined,
    bold: (text) => (isColoured ? `\x1b[1m${text}\x1b[0m` : text),
    print: (text) => void process.stdout.write(text),
    printJson: (document) => void process.stdout.write(`${JSON.stringify(document)}\n`),
    untilInterrupted,
  };
}

/** Whether the error is wanted as JSON, also where the arguments could not be parsed. */
function wantsJson(argv: readonly string[]): boolean {
  return argv.some((word) => word === "-j" || (word.length > 2 && "--json".startsWith(word)));
}

/**
 * Runs one command and sets the exit status: 0 done, 1 failed, 2 asked for in a wrong way. A failure
 * is one line on standard error; with --json standard output gets `{"error":...}` besides.
 */
export async function main(argv: readonly string[]): Promise<void> {
  watchOutput();
  let verb = verbs.find(({ name }) => argv.includes(name))?.name;
  try {
    const parsed = await parseArguments(argv, ownVersion());
    if (parsed === undefined) return;
    verb = parsed.verb.name;
    const run = await parsed.verb.load();
    await run(contextFor(parsed.given), parsed.given);
    process.exitCode = 0;
  } catch (caught) {
    const error = namedError(caught);
    process.exitCode = ERRORS[error.code].exit_status;
    if (wantsJson(argv)) process.stdout.write(`${JSON.stringify({ error: error.toBody() })}\n`);
    process.stderr.write(errorLine(error, verb));
  }
}
