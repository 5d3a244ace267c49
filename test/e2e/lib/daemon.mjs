/** The daemon under test. */
import { readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { BlksnapClient } from "@blksnap/client";
import { start } from "./command.mjs";
import { until } from "./wait.mjs";

export const SOCKET_PATH = "/run/blksnap/blksnapd.sock";
const BIN = fileURLToPath(new URL("../../../node_modules/.bin/", import.meta.url));
/** Small, so that stores of a few megabytes grow. */
const PORTION_BYTES = 32 * 2 ** 20;
const LIFE_LIMIT_MS = 900_000;
const START_LIMIT_MS = 60_000;
const STOP_LIMIT_MS = 30_000;

export class Daemon {
  #running;
  #ended = false;
  #logPath;
  client;

  constructor({ args = [], socketPath = SOCKET_PATH, name = "blksnapd" } = {}) {
    const words = [
      join(BIN, "blksnapd"),
      ...["--diff-storage-minimum", String(PORTION_BYTES), "--socket", socketPath],
      ...args,
    ];
    this.#logPath = join(process.env.E2E_LOGS ?? tmpdir(), `${name}.log`);
    rmSync(this.#logPath, { force: true });
    this.#running = start(words, { timeLimitMs: LIFE_LIMIT_MS, logPath: this.#logPath });
    this.client = new BlksnapClient({ socketPath, timeoutMs: 60_000 });
    void this.#running.end().then(() => {
      this.#ended = true;
    });
  }

  /** Starts a daemon and waits until it serves. */
  static async start(options) {
    const daemon = new Daemon(options);
    await until("the daemon serves", () => daemon.#ended || daemon.#serves(), START_LIMIT_MS);
    if (daemon.#ended) throw new Error(`the daemon ended at once\n${daemon.log()}`);
    return daemon;
  }

  async #serves() {
    return this.client.status().then(
      () => true,
      () => false,
    );
  }

  get pid() {
    return this.#running.pid;
  }

  get alive() {
    return !this.#ended;
  }

  kill(signal) {
    this.#running.kill(signal);
  }

  log() {
    return readFileSync(this.#logPath, "utf8");
  }

  /** Waits for its end, on its own or after a signal. */
  async ended() {
    await until("the daemon has ended", () => this.#ended, STOP_LIMIT_MS);
    return this.#running.end();
  }

  /** Ends it as an administrator would, and fails unless it ends cleanly. */
  async stop() {
    this.kill("SIGTERM");
    const { status, signal } = await this.ended();
    if (status !== 0) throw new Error(`the daemon's exit: ${status ?? signal}\n${this.log()}`);
  }
}

/** Words of a blksnapctl command. */
export function ctlWords(...args) {
  return [join(BIN, "blksnapctl"), ...args];
}
