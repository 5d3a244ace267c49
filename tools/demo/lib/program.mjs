/** Runs programs. */
import { spawn } from "node:child_process";
import { constants } from "node:os";
import { delimiter, join } from "node:path";
import { fileURLToPath } from "node:url";
import { searchPath } from "../../vm/index.mjs";

/** Programs run in this folder unless specified otherwise. */
export const REPOSITORY = fileURLToPath(new URL("../../..", import.meta.url));
const BIN = join(REPOSITORY, "node_modules/.bin");
const TIME_LIMIT_MS = 240_000;

export const PATH = [BIN, ...searchPath()].join(delimiter);

export function quote(word) {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

/**
 * Runs a program to its end, in its own process group, which keeps the terminal's Ctrl-C away from it; the signal
 * ends the whole group, and this waits for that.
 *
 * @param {string[]} words
 * @param {{cwd?: string, env?: object, signal?: AbortSignal}} [options]
 * @returns {Promise<{status: number, output: string, errors: string}>}
 */
export async function run([program, ...args], { cwd = REPOSITORY, env, signal } = {}) {
  const child = spawn(program, args, {
    cwd,
    detached: true,
    env: { ...process.env, PATH, ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let output = "";
  let errors = "";
  child.stdout.on("data", (chunk) => {
    output += chunk;
  });
  child.stderr.on("data", (chunk) => {
    errors += chunk;
  });
  const endGroup = () => child.pid && process.kill(-child.pid, "SIGTERM");
  const timer = setTimeout(endGroup, TIME_LIMIT_MS);
  signal?.addEventListener("abort", endGroup);
  try {
    const status = await new Promise((resolve, reject) => {
      child.on("error", reject);
      child.on("close", (code, name) => resolve(code ?? 128 + constants.signals[name]));
    });
    return { status, output, errors };
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", endGroup);
  }
}

/** Runs a program that must not fail. @returns {Promise<string>} its output */
export async function mustRun(words, options) {
  const { status, output, errors } = await run(words, options);
  if (status === 0) return output;
  const why = errors.trim().split("\n").at(-1) || output.trim().split("\n").at(-1);
  throw new Error(`${words.map(quote).join(" ")}: exit status ${status}: ${why}`);
}
