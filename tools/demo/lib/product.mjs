/** The daemon and its command line, as users run them. */
import { spawn } from "node:child_process";
import { closeSync, openSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { BlksnapClient } from "@blksnap/client";
import { mustRun, PATH, quote, run } from "./program.mjs";

const START_LIMIT_MS = 120_000;
const STOP_LIMIT_MS = 60_000;
const POLL_MS = 100;
const LOG_LINES_SHOWN = 5;

export class Product {
  #screen;
  #cleanup;
  #folder;
  #environment;
  #daemon;
  #serves = false;
  client;

  /** @param {string} folder for the daemon's socket, state and log; on tmpfs */
  constructor({ screen, cleanup, folder }) {
    this.#screen = screen;
    this.#cleanup = cleanup;
    this.#folder = folder;
    const socketPath = join(folder, "blksnapd.sock");
    this.#environment = { BLKSNAP_SOCKET: socketPath };
    this.client = new BlksnapClient({ socketPath });
  }

  /** The demo's own daemon: one that already runs here is not touched. */
  async start(more = []) {
    const state = ["--state-dir", join(this.#folder, "state")];
    const words = ["blksnapd", ...more, ...state, "--log-level", "warn"];
    this.#screen.command(`${words.join(" ")} &`);
    const log = openSync(this.#logPath, "a");
    const child = spawn(words[0], words.slice(1), {
      detached: true,
      stdio: ["ignore", log, log],
      env: { ...process.env, ...this.#environment, PATH },
    });
    closeSync(log);
    const ended = new Promise((resolve) => {
      child.on("error", (error) => resolve({ error }));
      child.on("exit", (status, signal) => resolve({ status, signal }));
    });
    this.#daemon = { child, ended, stop: this.#cleanup.add("blksnapd", () => this.#end()) };
    await this.#screen.during("waiting for blksnapd", () => this.#untilServing());
    this.#screen.success(`blksnapd serves, process ${child.pid}`);
  }

  get #logPath() {
    return join(this.#folder, "blksnapd.log");
  }

  async #untilServing() {
    const deadlineMs = Date.now() + START_LIMIT_MS;
    let hasEnded = false;
    void this.#daemon.ended.then(() => {
      hasEnded = true;
    });
    while (!hasEnded && Date.now() < deadlineMs) {
      this.#cleanup.checkInterrupt();
      const answer = await this.client.version().catch(() => undefined);
      if (answer !== undefined) {
        this.#serves = true;
        return;
      }
      await sleep(POLL_MS);
    }
    throw new Error(`blksnapd did not start: ${this.#logTail()}`);
  }

  #logTail() {
    const lines = readFileSync(this.#logPath, "utf8").trimEnd().split("\n");
    return lines.slice(-LOG_LINES_SHOWN).join("\n");
  }

  /** Stops the daemon as an administrator does. */
  async stop() {
    this.#screen.command(`kill ${this.#daemon.child.pid}`);
    await this.#screen.during("waiting for blksnapd to end", () => this.#daemon.stop());
    this.#screen.success("blksnapd has ended, exit status 0");
  }

  async #end() {
    const { child, ended } = this.#daemon;
    child.kill("SIGTERM");
    const late = sleep(STOP_LIMIT_MS, { late: true }, { ref: false });
    const outcome = await Promise.race([ended, late]);
    if (outcome.late) {
      child.kill("SIGKILL");
      await ended;
      throw new Error(`it did not end in ${STOP_LIMIT_MS / 1000} s and was killed`);
    }
    const endedAtStart = !this.#serves && outcome.signal === "SIGTERM";
    if (outcome.status === 0 || endedAtStart) return;
    throw new Error(`exit status ${outcome.status ?? outcome.signal}: ${this.#logTail()}`);
  }

  /**
   * Runs blksnapctl, shown with what it prints.
   *
   * @param {string[]} args
   * @param {{linesMax?: number}} [options]
   */
  async ctl(args, { linesMax = Number.POSITIVE_INFINITY } = {}) {
    const words = ["blksnapctl", ...args];
    this.#screen.command(words.map(quote).join(" "));
    this.#cleanup.checkInterrupt();
    const options = { signal: this.#cleanup.signal, env: this.#environment };
    const { status, output, errors } = await this.#screen.during("running", () =>
      run(words, options),
    );
    const lines = output.trimEnd().split("\n");
    this.#screen.output(lines.slice(0, linesMax).join("\n"));
    if (lines.length > linesMax) this.#screen.output(`(${lines.length - linesMax} more lines)`);
    this.#screen.output(errors);
    if (status !== 0) throw new Error(`${words[0]}: exit status ${status}`);
    return output;
  }

  /** Runs a program that is shown and must not fail, but prints nothing of interest. */
  async system(words, { cwd } = {}) {
    this.#screen.command(words.map(quote).join(" "));
    this.#cleanup.checkInterrupt();
    const options = { cwd, signal: this.#cleanup.signal };
    return this.#screen.during("running", () => mustRun(words, options));
  }
}
