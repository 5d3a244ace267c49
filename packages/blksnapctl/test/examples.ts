/** The commands in the examples of help. */
import { parseArguments, scan } from "../dist/parse.js";
import type { Verb } from "../dist/verb.js";

export interface ExampleCommand {
  readonly verb: Verb;
  readonly values: ReadonlyMap<string, readonly string[]>;
}

export const EXAMPLE_ID = "00000000-0000-4000-8000-000000000000";

/**
 * Parses the verb's own command in each of its examples with the real parser. The shell's parts are stripped:
 * everything before the command, and from the first `)`, `|`, `;`, `&` or `>` on.
 */
export function exampleCommands(verb: Verb): ExampleCommand[] {
  return verb.examples.map(([text]) => {
    const command = /blksnapctl ([^)|;&>]*)/.exec(text)?.[1];
    if (command === undefined) throw new Error(`no command in the example ${text}`);
    const words = command.trim().replaceAll("$ID", EXAMPLE_ID).split(/\s+/);
    const scanned = scan(words);
    const parsed = parseArguments(scanned);
    if (parsed.wanted !== "verb" || parsed.verb !== verb) {
      throw new Error(`the example ${text} is none of ${verb.name}`);
    }
    return { verb, values: scanned.values };
  });
}
