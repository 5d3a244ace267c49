/** The help of blksnapd. */
import type { Setting } from "@blksnap/api";
import { defaultOf, OPTIONS, usageOf } from "./option-table.js";

const INDENT = 25;
const WIDTH = 100;

/** Wraps the text into lines of at most `width` characters. */
function wrapped(text: string, width: number): string[] {
  const lines: string[] = [""];
  for (const word of text.split(" ")) {
    const line = `${lines.at(-1)} ${word}`.trimStart();
    if (line.length <= width) lines[lines.length - 1] = line;
    else lines.push(word);
  }
  return lines;
}

/** The option on the left, its meaning on the right; below if the option is too long. */
function described(option: Setting): string {
  const usage = `  ${usageOf(option)}`;
  const ending = defaultOf(option) === "" ? "" : ` (default: ${defaultOf(option)})`;
  const margin = " ".repeat(INDENT);
  const text = wrapped(option.help + ending, WIDTH - INDENT).join(`\n${margin}`);
  return usage.length + 2 > INDENT ? `${usage}\n${margin}${text}` : usage.padEnd(INDENT) + text;
}

export function usage(): string {
  const shown = OPTIONS.filter(({ internal }) => internal !== true);
  return `Usage: blksnapd [OPTION]...

Serves the control API of blksnap on a Unix socket, until SIGTERM or SIGINT. As long as a front or an
image is in use it refuses to end, and says which and by whom. SIGHUP is ignored.

${shown.map(described).join("\n")}

Exit status: 0 ended as asked, 1 failed, 2 wrong usage, 70 a thread was lost, 75 left to a successor
(daemon upgrade). After 70 and 75 a daemon has to be started again.

Examples: blksnapd --supervise &
          blksnapctl attach --device /dev/sdb1
          blksnapctl daemon upgrade
`;
}
