/** Runs blksnapctl. */
import { run as runInProcess } from "../../../packages/blksnapctl/dist/run.js";
import { attempt } from "./command.mjs";
import { ctlWords } from "./daemon.mjs";

/**
 * Runs a command of blksnapctl inside this process: all of it but the start of node, which takes
 * seconds in an emulated guest.
 */
export async function ctl(...args) {
  const output = { stdout: "", stderr: "" };
  const status = await runInProcess(args, {
    environment: process.env,
    columns: undefined,
    writeOut: (text) => {
      output.stdout += text;
    },
    writeError: (text) => {
      output.stderr += text;
    },
    untilInterrupted: () => new AbortController().signal,
  });
  return { status, ...output };
}

/** Runs the installed program itself. */
export function ctlProgram(...args) {
  return attempt(ctlWords(...args));
}
