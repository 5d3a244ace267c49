/**
 * Makes an argument list plain before it is parsed: options may be shortened to any unambiguous
 * beginning (`--dev` for `--device`), and a short option's value may stick to it (`-iUUID`), as the
 * kernel module's tool allows.
 */
import { usageError } from "./usage-error.js";
import type { OptionSpec, OptionSpecs, Verb } from "./verb.js";

/** Options of the parser itself. */
const builtIn: OptionSpecs = {
  help: { short: "h", describe: "show help" },
  version: { describe: "show the version of blksnapctl" },
};

function fullName(typed: string, options: OptionSpecs): string {
  if (Object.hasOwn(options, typed)) return typed;
  const matches = Object.keys(options).filter((name) => name.startsWith(typed));
  if (matches.length > 1) {
    const all = matches.map((name) => `--${name}`).join(" or ");
    throw usageError(`option '--${typed}' is ambiguous`, "USAGE", `Write ${all}`);
  }
  return matches[0] ?? typed;
}

function shortOption(letter: string, options: OptionSpecs): OptionSpec | undefined {
  return Object.values(options).find((option) => option.short === letter);
}

interface Plain {
  readonly words: readonly string[];
  /** The option takes the next word as its value. */
  readonly wantsValue: boolean;
}

function plainOption(word: string, options: OptionSpecs): Plain {
  if (word.startsWith("--")) {
    const [typed = "", ...rest] = word.slice(2).split("=");
    const name = fullName(typed, options);
    const isAlone = rest.length === 0;
    const wantsValue = isAlone && options[name]?.value !== undefined;
    return { words: [isAlone ? `--${name}` : `--${name}=${rest.join("=")}`], wantsValue };
  }
  const isValued = shortOption(word[1]!, options)?.value !== undefined;
  if (!isValued || word.length === 2) return { words: [word], wantsValue: isValued };
  const attached = word.slice(2);
  const value = attached.startsWith("=") ? attached.slice(1) : attached;
  return { words: [`${word.slice(0, 2)}=${value}`], wantsValue: false };
}

/** The same arguments with full option names, each attached value set apart by "=". */
export function plainArguments(
  argv: readonly string[],
  verbs: readonly Verb[],
  globals: OptionSpecs,
): string[] {
  let options: OptionSpecs = { ...globals, ...builtIn };
  const plain: string[] = [];
  let verb: Verb | undefined;
  let isValue = false;
  for (let i = 0; i < argv.length; i++) {
    const word = argv[i]!;
    if (word === "--") return [...plain, ...argv.slice(i)];
    if (word.startsWith("-") && word.length > 1 && !/^-[0-9]/.test(word)) {
      const { words, wantsValue } = plainOption(word, options);
      plain.push(...words);
      isValue = wantsValue;
      continue;
    }
    if (!isValue && verb === undefined) {
      verb = verbs.find(({ name }) => name === word);
      if (verb !== undefined) options = { ...options, ...verb.options };
    }
    plain.push(word);
    isValue = false;
  }
  return plain;
}
