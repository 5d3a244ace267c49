/** What a verb of the command line is, apart from its code, which is loaded when it is used. */
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
  /** The value may be left out; where it is not, it follows behind "=". */
  readonly optional?: boolean;
}

export type OptionSpecs = Readonly<Record<string, OptionSpec>>;

/** The variables that matter to the output. */
export interface Environment {
  readonly LC_ALL?: string | undefined;
  readonly LC_CTYPE?: string | undefined;
  readonly LANG?: string | undefined;
  readonly NO_COLOR?: string | undefined;
  readonly BLKSNAP_SOCKET?: string | undefined;
  readonly SHELL?: string | undefined;
}

/** The options that were given. */
export interface Given {
  /** The value of an option that is given once; undefined where it is absent. */
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
  /** What was written last is not waited for at the end. */
  leaveOutput(): void;
  input(): Readable;
}

export interface Context {
  readonly client: BlksnapClient;
  readonly json: boolean;
  readonly environment: Environment;
  /** Columns of the terminal; undefined where the output is none. */
  readonly columns: number | undefined;
  /** Titles in bold, where the terminal shows it. */
  readonly bold: (text: string) => string;
  /** Text or bytes as they are; lines with their newline. */
  readonly print: (text: string | Uint8Array) => void;
  /**
   * Like print; ends when the text has left this process.
   * @throws BlksnapClientError OUTPUT_FAILED
   */
  readonly deliver: (text: string) => Promise<void>;
  /** Says on standard error what is waited for; only where a person looks at it. */
  readonly tell: (text: string) => void;
  /** How far the command is, for the person who waits for it. */
  readonly progress: (text: string) => void;
  /** A line on standard error: done, but not all as one might think. */
  readonly warn: (text: string) => void;
  /** One JSON document on a line. */
  readonly printJson: (document: unknown) => void;
  readonly streams: DataStreams;
  /** A signal that aborts at SIGINT or SIGTERM, which end the process at once otherwise. */
  readonly untilInterrupted: () => AbortSignal;
  /** Has the command end with status 1 although it did what it was to do. */
  readonly notAllWell: () => void;
}

export interface VerbGroup {
  readonly title: string;
  readonly verbs: readonly Verb[];
}

export type Run = (context: Context, given: Given) => Promise<void>;

/** What has to follow the verb: one of a few words. */
export interface Action {
  readonly name: string;
  readonly describe: string;
  readonly choices: readonly string[];
  /** It may be left out. */
  readonly optional?: boolean;
}

/** A word that follows the verb, without an option's name before it. */
export interface Operand {
  readonly name: string;
  /** In help, e.g. IMAGE. */
  readonly value: string;
  /** It may be left out. */
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
  /** It waits for something to happen: that it does so is not news. */
  readonly waits?: boolean;
  /** With this option "-", standard output has data: all else goes to standard error. */
  readonly dataTo?: string;
}
