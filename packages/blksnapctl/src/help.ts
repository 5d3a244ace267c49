/**
 * Help and completion, by yargs. Loaded only where one of them is wanted: yargs takes longer to load
 * than everything else that a command needs.
 */
import yargs, { type Argv } from "yargs";
import { globalOptions, verbs } from "./catalog.js";
import { completions } from "./completion.js";
import { COMPLETION_COMMAND } from "./parse.js";
import type { OptionSpecs, Verb } from "./verb.js";

const HELP_WIDTH_MAX = 100;

function addOptions(parser: Argv, options: OptionSpecs): Argv {
  for (const [name, option] of Object.entries(options)) {
    const { short, describe, value, many = false, required = false } = option;
    const placeholder = value === undefined ? "" : `${value}${many ? " ..." : ""}: `;
    parser.option(name, {
      describe: `${placeholder}${describe}${required ? " (required)" : ""}`,
      type: value === undefined ? "boolean" : many ? "array" : "string",
      string: value !== undefined,
      ...(short === undefined ? {} : { alias: short }),
    });
  }
  return parser;
}

function createParser(version: string, columns: number | undefined): Argv {
  const parser: Argv = yargs()
    .scriptName("blksnapctl")
    .usage("$0 COMMAND [OPTIONS]\n\nSnapshots and changed-block tracking by blksnapd.")
    .wrap(Math.min(HELP_WIDTH_MAX, columns ?? HELP_WIDTH_MAX))
    .help("help")
    .alias("help", "h")
    .version(version)
    .completion(COMPLETION_COMMAND, "Print a completion script for bash or zsh", completions)
    .exitProcess(false)
    .epilogue("Sizes are in powers of 1024. See blksnapctl(8).");
  addOptions(parser, globalOptions);
  for (const verb of verbs) {
    const { action } = verb;
    const words = action === undefined ? "" : ` ${action.choices.join("|")}`;
    parser.command(verb.name + words, verb.describe, (sub) => {
      const detail = action === undefined ? "" : `\n\n${action.describe}.`;
      const usage = `$0 ${verb.name}${words} [OPTIONS]\n\n${verb.describe}.${detail}`;
      addOptions(sub, verb.options).usage(usage);
      for (const [command, what] of verb.examples) sub.example(command, what);
    });
  }
  return parser;
}

/** Prints help for a verb, or for the program. */
export async function printHelp(
  verb: Verb | undefined,
  version: string,
  columns: number | undefined,
): Promise<void> {
  const words = verb === undefined ? ["--help"] : [verb.name, "--help"];
  await createParser(version, columns).parseAsync(words);
}

export async function printCompletionScript(version: string): Promise<void> {
  await createParser(version, undefined).parseAsync([COMPLETION_COMMAND]);
}

/** What the shell asks for at the Tab key; a line that is being typed need not make sense yet. */
export async function printCompletions(argv: readonly string[], version: string): Promise<void> {
  await createParser(version, undefined)
    .fail(() => undefined)
    .parseAsync([...argv]);
}
