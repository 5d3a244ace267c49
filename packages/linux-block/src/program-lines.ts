/** Runs system programs whose output is read line by line, of any length. */
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { programEnvironment } from "./device-mapper/dmsetup.js";

/** Limit of standard error; a program may write about each line. */
const ERROR_TEXT_MAX = 1000;

export interface ProgramEnd {
  /** Why it could not be started. */
  readonly failure: Error | undefined;
  /** Null if a signal ended it, or it could not be started. */
  readonly status: number | null;
  /** The beginning of standard error. */
  readonly said: string;
}

/**
 * Runs a program, also of /usr/sbin, in the locale C, and calls `onLine` with each line of its output. Its
 * environment contains only PATH; there is no time limit.
 */
export async function runForLines(
  program: string,
  words: readonly string[],
  onLine: (line: string) => void,
): Promise<ProgramEnd> {
  const { PATH, LC_ALL } = programEnvironment();
  const child = spawn(program, words, {
    env: { PATH, LC_ALL },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let said = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    if (said.length < ERROR_TEXT_MAX) said += text;
  });
  const ended = new Promise<Omit<ProgramEnd, "said">>((done) => {
    child.on("error", (failure) => done({ failure, status: null }));
    child.on("close", (status) => done({ failure: undefined, status }));
  });
  for await (const line of createInterface({ input: child.stdout })) onLine(line);
  return { ...(await ended), said };
}
