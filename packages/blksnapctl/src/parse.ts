/** From an argument list to a verb and its options, by yargs. */
import { BlksnapClientError } from "@blksnap/client";
import yargs, { type Argv } from "yargs";
import { plainArguments } from "./argv.js";
import { globalOptions, verbs } from "./catalog.js";
import { completions } from "./completion.js";
import { usageError } from "./usage-error.js";
import type { Given, OptionSpec, OptionSpecs, Verb } from "./verb.js";

export interface Parsed {
  readonly verb: Verb;
  readonly given: Given;
}

const HELP_WIDTH_MAX = 100;

function addOptions(parser: Argv, options: OptionSpecs): Argv {
  for (const [name, option] of Object.entries(options)) {
    const { short, describe, value, many = false, required = false } = option;
    const placeholder = value === undefined ? "" : `${value}${many ? " ..." : ""}: `;
    parser.option(name, {
      describe: `${placeholder}${describe}${required ? " (required)" : ""}`,
      type: value === undefined ? "boolean" : many ? "array" : "string",
      string: value !== undefined,
      requiresArg: value !== undefined,
      ...(short === undefined ? {} : { alias: short }),
    });
  }
  return parser;
}

function checked(name: string, option: OptionSpec, value: unknown): readonly string[] {
  const values = value === undefined ? [] : Array.isArray(value) ? value.map(String) : [value];
  const hint = `Give --${name}${option.value === undefined ? "" : ` ${option.value}`}`;
  if (values.length === 0 && option.required === true) {
    throw usageError(`Argument '${name}' is missed`, "USAGE", hint);
  }
  if (values.length > 1 && option.many !== true) {
    throw usageError(`Argument '${name}' is given ${values.length} times`, "USAGE", `${hint} once`);
  }
  if (option.value !== undefined && values.some((text) => text === "")) {
    throw usageError(`Argument '${name}' is empty`, "USAGE", hint);
  }
  return values.map(String);
}

function givenFrom(verb: Verb, args: Record<string, unknown>): Given {
  const values = new Map<string, readonly string[]>();
  for (const [name, option] of Object.entries({ ...verb.options, ...globalOptions })) {
    values.set(name, checked(name, option, args[name]));
  }
  return {
    one: (option) => values.get(option)?.[0],
    need: (option) => values.get(option)![0]!,
    many: (option) => values.get(option) ?? [],
    has: (flag) => values.get(flag)?.includes("true") ?? false,
  };
}

function fault(message: string | undefined, typed: string | undefined): Error {
  if (message === undefined || /^Not enough non-option/.test(message)) {
    return usageError("no command is given", "USAGE", "See blksnapctl --help");
  }
  const [first = "", ...rest] = message.split("\n");
  const unknown = /^Unknown (?:arguments?|commands?): (.*)$/.exec(first);
  if (unknown !== null && typed !== undefined && !verbs.some(({ name }) => name === typed)) {
    return usageError(`there is no command ${typed}`, "USAGE", "See blksnapctl --help");
  }
  if (/^Did you mean/.test(first)) {
    return usageError(`there is no command ${typed}`, "USAGE", first);
  }
  const isPath = unknown?.[1]?.startsWith("/") ?? false;
  const hint = isPath ? "Give a device as --device DEVICE" : "See --help of the command";
  return usageError([first, ...rest].join(" "), "USAGE", hint);
}

/**
 * The verb to run; undefined where help, version or completion was printed instead. Throws a usage
 * error for whatever is not right about the arguments.
 */
export async function parseArguments(
  argv: readonly string[],
  version: string,
): Promise<Parsed | undefined> {
  const isCompletion = argv.includes("--get-yargs-completions");
  const first = argv[0] === "help" ? ["--help", ...argv.slice(1)] : argv;
  const plain = isCompletion ? [...argv] : plainArguments(first, verbs, globalOptions);
  let parsed: Parsed | undefined;
  const parser: Argv = yargs()
    .scriptName("blksnapctl")
    .usage("$0 COMMAND [OPTIONS]\n\nSnapshots and changed-block tracking by blksnapd.")
    .parserConfiguration({
      "camel-case-expansion": false,
      "dot-notation": false,
      "parse-numbers": false,
      "parse-positional-numbers": false,
      "boolean-negation": false,
    })
    .wrap(Math.min(HELP_WIDTH_MAX, process.stdout.columns ?? HELP_WIDTH_MAX))
    .help("help")
    .alias("help", "h")
    .version(version)
    .strict()
    .recommendCommands()
    .demandCommand(1)
    .completion("completion", "Print a completion script for bash or zsh", completions)
    .exitProcess(false)
    .fail((message, error) => {
      // yargs tells some mistakes as errors of its own, which know no name and no advice.
      if (error instanceof BlksnapClientError) throw error;
      const typed = plain.find((word) => !word.startsWith("-"));
      throw fault(error?.message ?? message, typed);
    })
    .epilogue("Sizes are in powers of 1024. See blksnapctl(8).");
  addOptions(parser, globalOptions);
  for (const verb of verbs) {
    parser.command(
      verb.name,
      verb.describe,
      (sub) => {
        addOptions(sub, verb.options).usage(`$0 ${verb.name} [OPTIONS]\n\n${verb.describe}.`);
        for (const [command, what] of verb.examples) sub.example(command, what);
      },
      (args) => {
        parsed = { verb, given: givenFrom(verb, args) };
      },
    );
  }
  try {
    await parser.parseAsync(plain);
  } catch (error) {
    // A line that is still being typed need not make sense yet.
    if (!isCompletion) throw error;
  }
  return parsed;
}
