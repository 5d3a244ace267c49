/**
 * Parses arguments like the kernel module's tool: a long option may be shortened to any unambiguous prefix (`--dev`
 * for `--device`), a value may follow a short option directly (`-iUUID`), flags may be combined (`-jb`), and some
 * options take several values at once.
 *
 * Nothing is thrown: the first mistake is kept and parsing continues, so that `--json` counts even behind a mistake.
 */

import { nearestName } from "@blksnap/api";
import type { BlksnapClientError } from "@blksnap/client";
import { usageError } from "./usage-error.js";
import type { OptionSpec, OptionSpecs, Verb } from "./verb.js";

/** Options that every command has, and the program without one. */
export const builtInOptions: OptionSpecs = {
  help: { short: "h", describe: "show help" },
  version: { describe: "show the version of blksnapctl" },
};

/** The option with which shells request completion; the words of the line follow, the unfinished one last. */
export const COMPLETIONS_WANTED = "--complete";

/** Longest part of a mistyped word in an error message. */
const QUOTED_MAX = 64;

export function quoted(text: string): string {
  return text.length > QUOTED_MAX ? `'${text.slice(0, QUOTED_MAX)}...'` : `'${text}'`;
}

export interface Scanned {
  /** The first word that is not an option, even if there is no such command. */
  readonly command: string | undefined;
  readonly verb: Verb | undefined;
  /** The values of each given option; a flag has an empty one per occurrence. */
  readonly values: ReadonlyMap<string, readonly string[]>;
  readonly fault: BlksnapClientError | undefined;
}

/** Whether a word may be the value of the preceding option; a negative number may. */
function isValue(word: string | undefined): word is string {
  return word !== undefined && (!word.startsWith("-") || word === "-" || /^-[0-9]/.test(word));
}

class Scanner {
  command: string | undefined;
  verb: Verb | undefined;
  readonly values = new Map<string, string[]>();
  fault: BlksnapClientError | undefined;
  readonly #argv: readonly string[];
  readonly #verbs: readonly Verb[];
  #options: OptionSpecs;
  #next = 0;
  /** The option before this word, if its value may be omitted and is. */
  #withoutValue: string | undefined;

  constructor(argv: readonly string[], verbs: readonly Verb[], globals: OptionSpecs) {
    this.#argv = argv;
    this.#verbs = verbs;
    this.#options = { ...globals, ...builtInOptions };
  }

  scan(): this {
    let optionsEnded = false;
    while (this.#next < this.#argv.length) {
      const word = this.#argv[this.#next++]!;
      const before = this.#withoutValue;
      this.#withoutValue = undefined;
      if (before !== undefined && /^[0-9]/.test(word)) {
        this.#blame(`${quoted(word)} is an unexpected argument`, `Give --${before}=${word}`);
      } else if (optionsEnded || word === "-" || !word.startsWith("-")) this.#word(word);
      else if (word === "--") optionsEnded = true;
      else if (word.startsWith("--")) this.#long(word.slice(2));
      else this.#cluster(word.slice(1));
    }
    return this;
  }

  #blame(message: string, hint = "See --help of the command"): void {
    this.fault ??= usageError(message, "USAGE", hint);
  }

  #word(word: string): void {
    const action = this.verb?.action;
    if (action !== undefined && !this.values.has(action.name)) {
      this.values.set(action.name, [word]);
      if (action.choices.includes(word)) return;
      const hint = `Give ${action.choices.join(" or ")}`;
      this.#blame(`${action.name}: ${quoted(word)} is unknown`, hint);
      return;
    }
    const operand = this.verb?.operands?.find(({ name }) => !this.values.has(name));
    if (operand !== undefined) {
      this.values.set(operand.name, [word]);
      return;
    }
    if (this.command !== undefined) {
      const hint = word.startsWith("/") ? "Give a device as --device DEVICE" : undefined;
      this.#blame(`${quoted(word)} is an unexpected argument`, hint);
      return;
    }
    this.command = word;
    this.verb = this.#verbs.find(({ name }) => name === word);
    if (this.verb !== undefined) this.#options = { ...this.#options, ...this.verb.options };
  }

  #long(text: string): void {
    const at = text.indexOf("=");
    const typed = at < 0 ? text : text.slice(0, at);
    const names = Object.keys(this.#options).filter((name) => name.startsWith(typed));
    const name = names.includes(typed) ? typed : names[0];
    if (name === undefined || typed === "") {
      const near = nearestName(typed, Object.keys(this.#options));
      const hint = near === undefined ? undefined : `Did you mean --${near}?`;
      this.#blame(`there is no option ${quoted(`--${typed}`)}`, hint);
    } else if (name !== typed && names.length > 1) {
      const all = names.map((one) => `--${one}`).join(" or ");
      this.#blame(`option ${quoted(`--${typed}`)} is ambiguous`, `Write ${all}`);
    } else {
      this.#accept(name, at < 0 ? undefined : text.slice(at + 1));
    }
  }

  /** `-j`, `-jb`, `-i UUID`, `-iUUID` or `-i=UUID`. */
  #cluster(text: string): void {
    for (let i = 0; i < text.length; i++) {
      const letter = text[i]!;
      const found = Object.entries(this.#options).find(([, { short }]) => short === letter);
      if (found === undefined) {
        this.#blame(`there is no option ${quoted(`-${text.slice(i)}`)}`);
        return;
      }
      const rest = text.slice(i + 1);
      if (found[1].value === undefined && !rest.startsWith("=")) {
        this.#accept(found[0], undefined);
        continue;
      }
      this.#accept(found[0], rest === "" ? undefined : rest.replace(/^=/, ""));
      return;
    }
  }

  #accept(name: string, attached: string | undefined): void {
    const option = this.#options[name]!;
    const values = this.values.get(name) ?? [];
    this.values.set(name, values);
    if (option.value === undefined) {
      if (attached !== undefined) this.#blame(`option '--${name}' takes no value`);
      values.push("");
      return;
    }
    if (attached === "" && option.optional === true) {
      this.#blame(`option '--${name}' has no value`, `Give --${name}=${option.value}, or no =`);
    }
    if (attached !== undefined) values.push(attached);
    else if (option.optional === true) {
      values.push("");
      this.#withoutValue = name;
    } else this.#acceptNext(name, option, values);
    while (option.many === true && isValue(this.#argv[this.#next])) {
      values.push(this.#argv[this.#next++]!);
    }
  }

  #acceptNext(name: string, option: OptionSpec, values: string[]): void {
    const word = this.#argv[this.#next];
    if (!isValue(word)) {
      this.#blame(`option '--${name}' has no value`, `Give --${name} ${option.value}`);
      return;
    }
    values.push(word);
    this.#next++;
  }
}

export function scanArguments(
  argv: readonly string[],
  verbs: readonly Verb[],
  globals: OptionSpecs,
): Scanned {
  return new Scanner(argv, verbs, globals).scan();
}
