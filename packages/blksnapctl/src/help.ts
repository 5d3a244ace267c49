/** Help texts, generated from the catalogue. */
import { builtInOptions } from "./argv.js";
import { globalOptions, verbGroups } from "./catalog.js";
import type { OptionSpec, OptionSpecs, Verb } from "./verb.js";

const WIDTH_MAX = 100;
/** Two columns need at least this width. */
const WIDTH_MIN = 40;
const GAP = "  ";

/** Wraps the text into lines of at most `width` characters. */
function wrapped(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" ")) {
    if (line !== "" && line.length + 1 + word.length > width) {
      lines.push(line);
      line = word;
    } else line = line === "" ? word : `${line} ${word}`;
  }
  return [...lines, line];
}

/** Names on the left, their meaning on the right. */
function columns(rows: readonly (readonly [string, string])[], width: number): string {
  const left = Math.max(...rows.map(([name]) => name.length));
  const indent = GAP.length + left + GAP.length;
  return rows
    .map(([name, what]) => {
      const lines = wrapped(what, Math.max(20, width - indent));
      return `${GAP}${name.padEnd(left)}${GAP}${lines.join(`\n${" ".repeat(indent)}`)}\n`;
    })
    .join("");
}

/** "--limit SIZE", "--wait[=SECONDS]", "--device DEVICE..." */
function usageOf(name: string, { value, many, optional }: OptionSpec): string {
  if (value === undefined) return `--${name}`;
  if (optional === true) return `--${name}[=${value}]`;
  return `--${name} ${value}${many === true ? "..." : ""}`;
}

function optionRows(options: OptionSpecs): (readonly [string, string])[] {
  return Object.entries(options).map(([name, option]) => {
    const short = option.short === undefined ? "    " : `-${option.short}, `;
    const note = option.required === true ? " (required)" : "";
    return [short + usageOf(name, option), option.describe + note];
  });
}

function verbHelp(verb: Verb, width: number): string {
  const { name, action, operands = [], describe, options, examples } = verb;
  const required = Object.entries(options).filter(([, option]) => option.required);
  const words = [
    name,
    ...(action === undefined ? [] : [action.choices.join("|")]),
    ...operands.map(({ value, optional }) => (optional === true ? `[${value}]` : value)),
    ...required.map(([option, spec]) => usageOf(option, spec)),
    "[OPTIONS]",
  ];
  const notes = action === undefined ? "" : `\n\n${wrapped(action.describe, width).join("\n")}.`;
  // Comment and command on separate lines, so that both can be copied into a shell.
  const lines = examples.map(([command, what]) => `${GAP}# ${what}\n${GAP}${command}\n`);
  return (
    `Usage: blksnapctl ${words.join(" ")}\n\n${wrapped(describe, width).join("\n")}.${notes}\n\n` +
    `Options:\n${columns(optionRows({ ...options, ...globalOptions, ...builtInOptions }), width)}\n` +
    `Examples:\n${lines.join("")}`
  );
}

function programHelp(width: number): string {
  const groups = verbGroups.map(({ title, verbs }) => {
    const rows = verbs.map(({ name, describe }) => [name, describe] as const);
    return `${title}:\n${columns(rows, width)}`;
  });
  return (
    "Usage: blksnapctl COMMAND [OPTIONS]\n\n" +
    "Snapshots and changed-block tracking by blksnapd.\n\n" +
    `${groups.join("\n")}\n` +
    `Options of all commands:\n${columns(optionRows({ ...globalOptions, ...builtInOptions }), width)}\n` +
    "Sizes are in powers of 1024. blksnapctl COMMAND --help has examples; see also blksnapctl(8).\n"
  );
}

/** @param width of the terminal; undefined if the output is no terminal */
export function helpText(verb: Verb | undefined, terminalColumns: number | undefined): string {
  const width = Math.max(WIDTH_MIN, Math.min(WIDTH_MAX, terminalColumns ?? WIDTH_MAX));
  return verb === undefined ? programHelp(width) : verbHelp(verb, width);
}
