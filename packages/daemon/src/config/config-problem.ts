/** Mistakes in the configuration. */

export interface ConfigProblem {
  readonly path: string;
  /** Counted from 1; absent if it is unknown, or the whole file is wrong. */
  readonly line?: number | undefined;
  /** The daemon does not start on an error. */
  readonly severity: "error" | "warning";
  readonly what: string;
  readonly hint: string;
}

export function isError({ severity }: Pick<ConfigProblem, "severity">): boolean {
  return severity === "error";
}

/** "/etc/blksnap/blksnap.toml:3" */
export function placeOf({ path, line }: Pick<ConfigProblem, "path" | "line">): string {
  return line === undefined ? path : `${path}:${line}`;
}

/** The reverse of placeOf. */
export function placeFrom(from: string): Pick<ConfigProblem, "path" | "line"> {
  const [, path = from, line] = /^(.*):(\d+)$/.exec(from) ?? [];
  return { path, line: line === undefined ? undefined : Number(line) };
}

/** On one line, without the severity. */
export function problemText(problem: ConfigProblem): string {
  const end = problem.hint.endsWith("?") ? "" : ".";
  return `${placeOf(problem)}: ${problem.what}. ${problem.hint}${end}`;
}
