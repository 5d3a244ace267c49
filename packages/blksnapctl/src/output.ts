/** Standard output and error of the command line. */
import { isErrorName } from "@blksnap/api";
import { BlksnapClientError } from "@blksnap/client";

/** A reader that went away, as `head` does, is no failure of ours. */
function endQuietlyOnClosedPipe(stream: NodeJS.WriteStream): void {
  stream.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code === "EPIPE") process.exit(process.exitCode ?? 0);
    process.stderr.write(
      `blksnapctl: can't write the output: ${error.message}. Free some space.\n`,
    );
    process.exit(1);
  });
}

export function watchOutput(): void {
  endQuietlyOnClosedPipe(process.stdout);
  process.stderr.on("error", () => process.exit(1));
}

const ESCAPE = "\x1b";
/** Behind that, of bold letters, which are ours. Of others one hides what follows, and colours may do the same. */
const LETTERING = /^\[[01]m/;

/**
 * Text for a terminal: what it would take for a command to it is shown in its place. Names of devices, hosts and files
 * may come from others, as those in a shared store or in the file system of a guest.
 */
export function visible(text: string): string {
  return text.replace(/\p{Cc}/gu, (one, at: number) => {
    const isMeant = one === "\n" || one === "\t";
    if (isMeant || (one === ESCAPE && LETTERING.test(text.slice(at + 1, at + 4)))) return one;
    return `\\x${one.charCodeAt(0).toString(16).padStart(2, "0")}`;
  });
}

/** What was asked for could not be told. */
export function outputFailed(cause: Error): BlksnapClientError {
  return new BlksnapClientError("OUTPUT_FAILED", `can't write the output: ${cause.message}`, {
    cause,
  });
}

/** Any failure as one with a name; what has none is our own fault. */
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
 * "<why>. <what to do>. [NAME]" on one line, after the verb where there is one. The name can be looked up in
 * the manual; that of a wrong usage says nothing more.
 */
export function errorLine(error: BlksnapClientError, verb: string | undefined): string {
  const why = visible(error.message.replace(/\s*\n\s*/g, " ")).replace(/\.$/, "");
  const hint = visible(error.hint).replace(/\.$/, "");
  const end = hint.endsWith("?") ? "" : ".";
  const name = error.code === "USAGE" ? "" : ` [${error.code}]`;
  return `blksnapctl: ${verb === undefined ? "" : `${verb}: `}${why}. ${hint}${end}${name}\n`;
}
