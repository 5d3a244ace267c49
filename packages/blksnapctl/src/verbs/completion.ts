/** completion: prints the script that adds completion to a shell. */
import { basename } from "node:path";
import { usageError } from "../usage-error.js";
import type { Context, Given } from "../verb.js";

/** If nothing is offered, the shells fall back to file names. */
const SCRIPTS: Readonly<Record<string, string>> = {
  bash: `# source <(blksnapctl completion bash), or a file in /etc/bash_completion.d
_blksnapctl() {
  mapfile -t COMPREPLY < <(blksnapctl --complete "\${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -o default -F _blksnapctl blksnapctl
`,
  zsh: `#compdef blksnapctl
# source <(blksnapctl completion zsh), or a file _blksnapctl in a folder of $fpath
_blksnapctl() {
  local -a found
  found=(\${(f)"$(blksnapctl --complete "\${(@)words[2,CURRENT]}" 2>/dev/null)"})
  if (( $#found )); then compadd -- $found; else _files; fi
}
compdef _blksnapctl blksnapctl
`,
  fish: `# blksnapctl completion fish | source, or a file in ~/.config/fish/completions
complete -c blksnapctl -a '(blksnapctl --complete (commandline -opc)[2..-1] (commandline -ct) 2>/dev/null)'
`,
};

export async function completion(
  { environment, json, print, printJson }: Context,
  given: Given,
): Promise<void> {
  const shell = given.one("shell") ?? basename(environment.SHELL ?? "");
  const script = SCRIPTS[shell];
  if (script === undefined) {
    const hint = `Give ${Object.keys(SCRIPTS).join(", ")}`;
    throw usageError(`shell: no script is known for '${shell}'`, "USAGE", hint);
  }
  if (json) return printJson({ shell, script });
  print(script);
}
