/** Standard output and error of the command line. */
import { isErrorName } from "@blksnap/api";
import { BlksnapClientError } from "@blksnap/client";

/** Standard output and error of this process, which may lose their readers or their space. */
export interface WatchedOutput {
  /** From now on the process continues without its output, because it has to end what it has begun. */
  outlive(): void;
  /** @param status of the command */
  statusOf(status: number): number;
}

/** A reader that closes the pipe, such as `head`, is no failure; unless told otherwise, it ends the process. */
export function watchOutput(): WatchedOutput {
  let isNeeded = true;
  let hasFailed = false;
  process.stdout.on("error", ({ code, message }: NodeJS.ErrnoException) => {
    if (code !== "EPIPE" && !hasFailed) {
      hasFailed = true;
      process.stderr.write(`blksnapctl: can't write the output: ${message}. Free some space.\n`);
    }
    if (isNeeded) process.exit(hasFailed ? 1 : process.exitCode);
    // The command may have ended already.
    if (hasFailed && process.exitCode !== undefined) process.exitCode ||= 1;
  });
  // Its terminal may be gone; the status still says what became of the command.
  process.stderr.on("error", () => undefined);
  return {
    outlive: () => {
      isNeeded = false;
    },
    statusOf: (status) => status || Number(hasFailed),
  };
}

const ESCAPE = "\x1b";
/** Our own bold, after ESCAPE. Any other sequence is made visible: some hide the text after them, as colours may. */
const LETTERING = /^\[[01]m/;

/**
 * Makes text safe for a terminal: shows control characters as visible text. Names of devices, hosts and files may
 * come from others, as in a shared store or in the file system of a guest.
 */
export function visible(text: string): string {
  return text.replace(/\p{Cc}/gu, (one, at: number) => {
    const isMeant = one === "\n" || one === "\t";
    if (isMeant || (one === ESCAPE && LETTERING.test(text.slice(at + 1, at + 4)))) return one;
    return `\\x${one.charCodeAt(0).toString(16).padStart(2, "0")}`;
  });
}

/** The requested output could not be written. */
export function outputFailed(cause: Error): BlksnapClientError {
  return new BlksnapClientError("OUTPUT_FAILED", `can't write the output: ${cause.message}`, {
    cause,
  });
}

/** Any failure as a named error; one without a name is a bug. */
export function namedError(error: unknown): BlksnapClientError {
  if (error instanceof BlksnapClientError) return error;
  const { code, hint } = (error ?? {}) as { readonly code?: unknown; readonly hint?: unknown };
  if (error instanceof Error && isErrorName(code)) {
    const details = typeof hint === "string" ? { hint, cause: error } : { cause: error };
    return new BlksnapClientError(code, error.message, details);
  }
  const message = error instanceof Error ? error.message : String(error);
  return new BlksnapClientError("INTERNAL", message, {
    cause: error,
    hint: "This is a fault of blksnapctl; please report it",
  });
}

/**
 * "<why>. <what to do>. [NAME]" on one line, after the verb if there is one. The manual lists the names, except that
 * of wrong usage, which is omitted.
 */
export function errorLine(error: BlksnapClientError, verb: string | undefined): string {
  const why = visible(error.message.replace(/\s*\n\s*/g, " ")).replace(/\.$/, "");
  const hint = visible(error.hint).replace(/\.$/, "");
  const end = hint.endsWith("?") ? "" : ".";
  const name = error.code === "USAGE" ? "" : ` [${error.code}]`;
  return `blksnapctl: ${verb === undefined ? "" : `${verb}: `}${why}. ${hint}${end}${name}\n`;
}
