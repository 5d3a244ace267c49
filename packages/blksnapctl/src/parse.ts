/** Turns arguments into an action: a verb with its options, or help. */

import { nearestName } from "@blksnap/api";
import { quoted, type Scanned, scanArguments } from "./argv.js";
import { globalOptions, verbs } from "./catalog.js";
import { usageError } from "./usage-error.js";
import type { Given, OptionSpec, Verb } from "./verb.js";

export type Parsed =
  | { readonly wanted: "verb"; readonly verb: Verb; readonly given: Given }
  | { readonly wanted: "help"; readonly verb: Verb | undefined }
  | { readonly wanted: "version" };

const HELP_COMMAND = "help";

function checkOption(name: string, option: OptionSpec, values: readonly string[]): void {
  const { value, many = false, required = false, optional = false } = option;
  const hint = `Give --${name}${value === undefined ? "" : ` ${value}`}`;
  if (values.length === 0 && required) {
    throw usageError(`Argument '${name}' is missed`, "USAGE", hint);
  }
  if (values.length > 1 && !many) {
    throw usageError(`Argument '${name}' is given ${values.length} times`, "USAGE", `${hint} once`);
  }
  if (value !== undefined && !optional && values.includes("")) {
    throw usageError(`Argument '${name}' is empty`, "USAGE", hint);
  }
}

function givenFrom(verb: Verb, values: Scanned["values"]): Given {
  for (const [name, option] of Object.entries({ ...globalOptions, ...verb.options })) {
    checkOption(name, option, values.get(name) ?? []);
  }
  const { action } = verb;
  if (action !== undefined && action.optional !== true && !values.has(action.name)) {
    const hint = `Give ${action.choices.join(" or ")}`;
    throw usageError(`Argument '${action.name}' is missed`, "USAGE", hint);
  }
  for (const { name, value, optional = false } of verb.operands ?? []) {
    const words = values.get(name) ?? [];
    if (words.length === 0 && optional) continue;
    if (words.length === 0)
      throw usageError(`Argument '${name}' is missed`, "USAGE", `Give ${value}`);
    if (words[0] === "") throw usageError(`Argument '${name}' is empty`, "USAGE", `Give ${value}`);
  }
  return {
    one: (option) => values.get(option)?.[0],
    need: (option) => values.get(option)![0]!,
    many: (option) => values.get(option) ?? [],
    has: (flag) => values.has(flag),
  };
}

function unknownCommand(command: string): Error {
  const near = nearestName(
    command,
    verbs.map(({ name }) => name),
  );
  const hint = near === undefined ? "See blksnapctl --help" : `Did you mean ${near}?`;
  return usageError(`there is no command ${quoted(command)}`, "USAGE", hint);
}

/**
 * The requested action. Throws a usage error that names the option for any mistake in the arguments.
 */
export function parseArguments(scanned: Scanned): Parsed {
  const { command, verb, values, fault } = scanned;
  // Users often ask for help after a mistake.
  if (values.has("help") && (verb !== undefined || command === undefined)) {
    return { wanted: "help", verb };
  }
  if (command !== undefined && verb === undefined && command !== HELP_COMMAND) {
    // Before errors of its options: they may be valid for the intended command.
    throw unknownCommand(command);
  }
  if (values.has("help")) return { wanted: "help", verb };
  if (fault !== undefined) throw fault;
  if (values.has("version")) return { wanted: "version" };
  if (command === undefined) {
    throw usageError("no command is given", "USAGE", "See blksnapctl --help");
  }
  if (verb === undefined) return { wanted: "help", verb: undefined };
  return { wanted: "verb", verb, given: givenFrom(verb, values) };
}

export function scan(argv: readonly string[]): Scanned {
  // "help VERB" is "VERB --help", also for an unknown verb.
  const isHelpOf = argv[0] === HELP_COMMAND && argv.length > 1 && !argv[1]!.startsWith("-");
  const words = isHelpOf ? [...argv.slice(1), "--help"] : argv;
  return scanArguments(words, verbs, globalOptions);
}
