/** Runs programs, each with a time limit: a hanging tool ends its test, not the whole run. */
import { spawn } from "node:child_process";
import { closeSync, openSync } from "node:fs";

const TIME_LIMIT_DEFAULT_MS = 600_000;

/**
 * @typedef {object} CommandOptions
 * @property {number} [timeLimitMs]
 * @property {number | number[] | "any"} [status] the exit statuses that are fine; default 0
 * @property {string | Buffer} [input]
 * @property {string} [cwd]
 * @property {Record<string, string>} [env] on top of this process's own
 * @property {"text" | "bytes"} [output]
 * @property {string} [logPath] file for both outputs, which outlives this process
 */

/** A program that was started and may still run. */
export class Running {
  #words;
  #child;
  #ended;
  #stdout = [];
  #stderr = [];
  #timedOut = false;

  constructor(words, { timeLimitMs = TIME_LIMIT_DEFAULT_MS, input, env, cwd, logPath } = {}) {
    this.#words = words;
    const log = logPath === undefined ? undefined : openSync(logPath, "a");
    this.#child = spawn(words[0], words.slice(1), {
      stdio: [input === undefined ? "ignore" : "pipe", log ?? "pipe", log ?? "pipe"],
      env: { ...process.env, ...env },
      cwd,
    });
    if (log !== undefined) closeSync(log);
    this.#child.stdout?.on("data", (chunk) => this.#stdout.push(chunk));
    this.#child.stderr?.on("data", (chunk) => this.#stderr.push(chunk));
    if (input !== undefined) {
      this.#child.stdin.on("error", () => {});
      this.#child.stdin.end(input);
    }
    const timer = setTimeout(() => {
      this.#timedOut = true;
      this.#child.kill("SIGKILL");
    }, timeLimitMs);
    const started = performance.now();
    this.#ended = new Promise((done) => {
      this.#child.on("error", (error) => done({ status: null, signal: null, error }));
      this.#child.on("close", (status, signal) => done({ status, signal }));
    }).finally(() => {
      clearTimeout(timer);
      if (process.env.E2E_TRACE) {
        console.log(`${Math.round(performance.now() - started)} ms: ${words.join(" ")}`);
      }
    });
  }

  get pid() {
    return this.#child.pid;
  }

  kill(signal = "SIGTERM") {
    this.#child.kill(signal);
  }

  /** Waits for the end, with any status. */
  async end() {
    const { status, signal, error } = await this.#ended;
    const stdout = Buffer.concat(this.#stdout);
    const stderr = Buffer.concat(this.#stderr).toString();
    return { status, signal, error, timedOut: this.#timedOut, stdout, stderr };
  }

  /** Waits for the end and fails unless its exit status is one of the allowed. */
  async succeed(allowed = 0) {
    const result = await this.end();
    if (result.status !== null && [allowed].flat().includes(result.status)) return result;
    throw new Error(`${this.#words.join(" ")}: ${howItEnded(result)}\n${outputOf(result)}`);
  }
}

function howItEnded({ status, signal, error, timedOut }) {
  if (error) return error.message;
  if (timedOut) return "not done within its time limit";
  return status === null ? `ended by ${signal}` : `exit status ${status}`;
}

function outputOf({ stdout, stderr }) {
  return `${stdout.toString().slice(-4000)}${stderr.slice(-4000)}`.trimEnd();
}

/** Starts a program that runs in parallel with the test. */
export function start(words, options) {
  return new Running(words, options);
}

/**
 * Runs a program to its end and answers its standard output.
 *
 * @param {string[]} words
 * @param {CommandOptions} [options]
 */
export async function run(words, options = {}) {
  const { status = 0, output = "text" } = options;
  const running = new Running(words, options);
  const { stdout } = status === "any" ? await running.end() : await running.succeed(status);
  return output === "bytes" ? stdout : stdout.toString();
}

/** Runs a program that may fail: returns status and outputs. */
export async function attempt(words, options) {
  const { status, stdout, stderr } = await new Running(words, options).end();
  return { status, stdout: stdout.toString(), stderr };
}
