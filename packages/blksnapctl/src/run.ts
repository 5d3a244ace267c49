/** Runs one command in the given surroundings. */
import { readFileSync } from "node:fs";
import { ERRORS } from "@blksnap/api";
import { COMPLETIONS_WANTED, type Scanned } from "./argv.js";
import { errorLine, namedError, outputFailed, visible } from "./output.js";
import { parseArguments, scan } from "./parse.js";
import { showWaiting, type Waiting } from "./progress.js";
import { parseSocket, parseWait } from "./values.js";
import type { Context, DataStreams, Environment, Given } from "./verb.js";

export interface Surroundings {
  readonly environment: Environment;
  /** Width of the terminal; undefined if the output is none. */
  readonly columns: number | undefined;
  /** Whether standard error is a terminal. */
  readonly isAttended?: boolean;
  /** Width of the terminal of standard error. */
  readonly errorColumns?: number | undefined;
  writeOut(text: string | Uint8Array): void;
  /** Writes before it returns. @throws the error of write(2) */
  writeOutNow?(text: string): void;
  writeError(text: string): void;
  untilInterrupted(): AbortSignal;
  /** The command continues even if its output can no longer be written. */
  outliveOutput?(): void;
  readonly streams: DataStreams;
}

function ownVersion(): string {
  const manifest = readFileSync(new URL(import.meta.resolve("blksnapctl/package.json")), "utf8");
  return (JSON.parse(manifest) as { version: string }).version;
}

/** The client is loaded only for commands: help and completion start faster without it. */
async function contextFor(
  given: Given,
  surroundings: Surroundings,
): Promise<Omit<Context, "notAllWell" | "progress">> {
  const { BlksnapClient } = await import("@blksnap/client");
  const { environment, columns, writeOut, writeError, untilInterrupted } = surroundings;
  const option = given.one("socket");
  const socket = option === undefined ? environment.BLKSNAP_SOCKET : parseSocket(option);
  const wait = given.one("wait");
  const isColoured = columns !== undefined && !environment.NO_COLOR && environment.TERM !== "dumb";
  return {
    client: new BlksnapClient({
      ...(socket ? { socketPath: socket } : {}),
      ...(wait === undefined ? {} : { waitMs: parseWait(wait) }),
      onWait: () => {
        if (surroundings.isAttended === true) writeError("blksnapctl: waiting for a daemon ...\n");
      },
    }),
    json: given.has("json"),
    environment,
    columns,
    bold: (text) => (isColoured ? `\x1b[1m${text}\x1b[0m` : text),
    // Scripts get names unchanged.
    print: (text) => {
      writeOut(columns === undefined || typeof text !== "string" ? text : visible(text));
    },
    deliver: async (text) => {
      try {
        (surroundings.writeOutNow ?? writeOut)(text);
      } catch (error) {
        throw outputFailed(error as Error);
      }
    },
    warn: (text) => writeError(`blksnapctl: ${visible(text)}\n`),
    printJson: (document) => writeOut(`${JSON.stringify(document)}\n`),
    untilInterrupted,
    streams: surroundings.streams,
  };
}

/** If standard output carries data, documents go to standard error, and so does text if a terminal is there. */
function besideData({ verb, values }: Scanned, surroundings: Surroundings): Surroundings {
  const isData = verb?.dataTo !== undefined && values.get(verb.dataTo)?.[0] === "-";
  if (!isData || surroundings.streams.isOutTerminal) return surroundings;
  const { writeError, isAttended, errorColumns: columns } = surroundings;
  const isSaid = isAttended === true || values.has("json");
  const writeOut = (text: string | Uint8Array): void => {
    if (isSaid) writeError(text.toString());
  };
  return { ...surroundings, columns, writeOut, writeOutNow: writeOut };
}

/** The line of progress may be on the terminal that shows the output, too. */
function besideProgress(surroundings: Surroundings, waiting: Waiting | undefined): Surroundings {
  if (waiting === undefined) return surroundings;
  const { writeOut, writeOutNow = writeOut, writeError } = surroundings;
  const cleared =
    <Text>(write: (text: Text) => void) =>
    (text: Text): void => {
      waiting.clear();
      write(text);
    };
  return {
    ...surroundings,
    writeOut: cleared(writeOut),
    writeOutNow: cleared(writeOutNow),
    writeError: cleared(writeError),
  };
}

/** Returns the exit status. */
async function runScanned(scanned: Scanned, surroundings: Surroundings): Promise<number> {
  const parsed = parseArguments(scanned);
  let status = 0;
  switch (parsed.wanted) {
    case "verb": {
      const { name, waits = false, isForReader = waits, isFinished = false } = parsed.verb;
      if (!isForReader) surroundings.outliveOutput?.();
      const runVerb = await parsed.verb.load();
      const notAllWell = (): void => {
        status = 1;
      };
      const isShown = surroundings.isAttended === true && !waits;
      const { writeError: write, errorColumns: columns } = surroundings;
      const waiting = isShown ? showWaiting(name, { write, columns, isFinished }) : undefined;
      const progress = waiting?.note ?? (() => undefined);
      const context = await contextFor(parsed.given, besideProgress(surroundings, waiting));
      try {
        await runVerb({ ...context, notAllWell, progress }, parsed.given);
      } finally {
        waiting?.end();
      }
      break;
    }
    case "help": {
      const { helpText } = await import("./help.js");
      surroundings.writeOut(helpText(parsed.verb, surroundings.columns));
      break;
    }
    case "version":
      surroundings.writeOut(`${ownVersion()}\n`);
  }
  return status;
}

/**
 * The exit status: 0 done, 1 failed, 2 wrong usage. A failure is one line on standard error; with --json standard
 * output gets `{"error":...}` as well.
 */
export async function run(argv: readonly string[], given: Surroundings): Promise<number> {
  if (argv[0] === COMPLETIONS_WANTED) {
    const { completions } = await import("./completion.js");
    for (const word of await completions(argv.slice(1))) given.writeOut(`${word}\n`);
    return 0;
  }
  const scanned = scan(argv);
  const surroundings = besideData(scanned, given);
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
