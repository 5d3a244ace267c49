/** Description of a verb of the command line; its code is loaded when it is used. */
import type { Readable } from "node:stream";
import type { BlksnapClient } from "@blksnap/client";

export interface OptionSpec {
  readonly short?: string;
  readonly describe: string;
  /** Name of the value in help, e.g. DEVICE; absent for a flag. */
  readonly value?: string;
  /** May be repeated, and take several values at once. */
  readonly many?: boolean;
  readonly required?: boolean;
  /** The value may be omitted; if given, it follows "=". */
  readonly optional?: boolean;
}

export type OptionSpecs = Readonly<Record<string, OptionSpec>>;

/** Environment variables that affect the output. */
export interface Environment {
  readonly LC_ALL?: string | undefined;
  readonly LC_CTYPE?: string | undefined;
  readonly LANG?: string | undefined;
  readonly NO_COLOR?: string | undefined;
  readonly TERM?: string | undefined;
  readonly BLKSNAP_SOCKET?: string | undefined;
  readonly SHELL?: string | undefined;
}

/** The given options. */
export interface Given {
  /** The value of an option that is given once; undefined if it is absent. */
  one(option: string): string | undefined;
  /** The value of a required option. */
  need(option: string): string;
  many(option: string): readonly string[];
  has(flag: string): boolean;
}

/** Standard input and output of the process, for data. */
export interface DataStreams {
  readonly outFd: number;
  readonly isInTerminal: boolean;
  readonly isOutTerminal: boolean;
  /** Does not wait at the end for output that is still buffered. */
  leaveOutput(): void;
  input(): Readable;
}

export interface Context {
  readonly client: BlksnapClient;
  readonly json: boolean;
  readonly environment: Environment;
  /** Columns of the terminal; undefined if the output is none. */
  readonly columns: number | undefined;
  /** A title in bold, if the terminal supports it. */
  readonly bold: (text: string) => string;
  /** Prints text or bytes unchanged; lines include their newline. */
  readonly print: (text: string | Uint8Array) => void;
  /**
   * Like print; resolves when the text has left this process.
   * @throws BlksnapClientError OUTPUT_FAILED
   */
  readonly deliver: (text: string) => Promise<void>;
  /** Shows the progress on a terminal. */
  readonly progress: (text: string) => void;
  /** Prints a line on standard error: the command succeeded, but with a restriction. */
  readonly warn: (text: string) => void;
  /** One JSON document on a line. */
  readonly printJson: (document: unknown) => void;
  readonly streams: DataStreams;
  /** Aborts at SIGINT or SIGTERM, which otherwise end the process at once. */
  readonly untilInterrupted: () => AbortSignal;
  /** Ends the command with status 1 although it has done its work. */
  readonly notAllWell: () => void;
}

export interface VerbGroup {
  readonly title: string;
  readonly verbs: readonly Verb[];
}

export type Run = (context: Context, given: Given) => Promise<void>;

/** A required word after the verb: one of a few. */
export interface Action {
  readonly name: string;
  readonly describe: string;
  readonly choices: readonly string[];
  /** It may be omitted. */
  readonly optional?: boolean;
}

/** A word after the verb that is an unexpected argument. */
export interface Operand {
  readonly name: string;
  /** In help, e.g. IMAGE. */
  readonly value: string;
  /** It may be omitted. */
  readonly optional?: boolean;
}

export interface Verb {
  readonly name: string;
  readonly action?: Action;
  readonly operands?: readonly Operand[];
  readonly describe: string;
  readonly options: OptionSpecs;
  readonly examples: readonly (readonly [command: string, what: string])[];
  readonly load: () => Promise<Run>;
  /** It waits for events, so it reports no wait, and it ends with its reader. */
  readonly waits?: boolean;
  /** It is run for its output only: it ends with the reader of that. Any other command ends what it has begun. */
  readonly isForReader?: boolean;
  /** The daemon finishes it even if this process is interrupted. */
  readonly isFinished?: boolean;
  /** With "-" for this option, data go to standard output, and all else to standard error. */
  readonly dataTo?: string;
}
