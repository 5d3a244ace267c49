/** The daemon under test. */
import { existsSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { BlksnapClient } from "@blksnap/client";
import { start } from "./command.mjs";
import { timeLimitMs } from "./limits.mjs";
import { until } from "./wait.mjs";

export const SOCKET_PATH = "/run/blksnap/blksnapd.sock";
const BIN = fileURLToPath(new URL("../../../node_modules/.bin/", import.meta.url));
/** Two, so that devices of one snapshot are on different threads, even with one processor. */
const REACTORS = 2;
/** Made once and kept: the rings of the daemon's main thread and of its reactors. */
export const MADE_ON_FIRST_USE = Array(1 + REACTORS).fill("anon_inode:[io_uring]");
/** Small, so that stores of a few megabytes grow. */
const PORTION_BYTES = 32 * 2 ** 20;
const LIFE_LIMIT_MS = timeLimitMs(2_700_000);
const START_LIMIT_MS = 300_000;
const CALL_LIMIT_MS = 300_000;
/** Limit for waits that reach the users' limit only on a slow machine. */
const FREEZE_LIMIT_MS = 60_000;
const UBLK_DEVICES = "/sys/class/ublk-char";
const STOP_LIMIT_MS = 300_000;

export class Daemon {
  #running;
  #ended = false;
  #logPath;
  #socketPath;
  client;

  constructor({ args = [], socketPath = SOCKET_PATH, name = "blksnapd", env = {} } = {}) {
    this.#socketPath = socketPath;
    const words = [
      join(BIN, "blksnapd"),
      ...["--diff-storage-minimum", String(PORTION_BYTES), "--socket", socketPath],
      ...["--reactors", String(REACTORS), "--freeze-timeout", String(FREEZE_LIMIT_MS)],
      ...args,
    ];
    this.#logPath = join(process.env.E2E_LOGS ?? tmpdir(), `${name}.log`);
    rmSync(this.#logPath, { force: true });
    this.#running = start(words, { timeLimitMs: LIFE_LIMIT_MS, logPath: this.#logPath, env });
    this.client = new BlksnapClient({ socketPath, timeoutMs: CALL_LIMIT_MS });
    void this.#running.end().then(() => {
      this.#ended = true;
    });
  }

  /** Starts a daemon and waits until it serves. */
  static async start(options) {
    const started = performance.now();
    const daemon = new Daemon(options);
    await daemon.untilServing();
    if (process.env.E2E_TRACE) {
      console.log(`the daemon serves after ${Math.round(performance.now() - started)} ms`);
    }
    return daemon;
  }

  /**
   * Starts a daemon of the test, which ends with the test in any case.
   */
  static async startFor(t, options) {
    const daemon = new Daemon(options);
    t.daemon = daemon;
    t.defer(() => daemon.leave(t));
    await daemon.untilServing();
    return daemon;
  }

  async untilServing() {
    await until("the daemon serves", () => this.#ended || this.#serves(), START_LIMIT_MS);
    if (this.#ended) throw new Error(`the daemon ended at once\n${this.log()}`);
  }

  /** It ends with the test, before the disks go: after a failure its fronts and images would hold them. */
  async leave(t) {
    const isToClear = t.hasFailed && this.#socketPath === SOCKET_PATH;
    if (isToClear) await this.endDevices().catch(() => undefined);
    await this.destroy();
    if (isToClear) await endDevicesLeft();
  }

  /** Ends all snapshots and trackers. */
  endDevices() {
    return endDevicesOf(this);
  }

  /** Kills it with the daemons that it supervises. */
  async destroy() {
    if (this.#ended) return;
    const children = childrenOf(this.pid);
    for (const pid of [this.pid, ...children]) {
      try {
        process.kill(Number(pid), "SIGKILL");
      } catch {
        // It has just ended.
      }
    }
    await this.ended();
  }

  async #serves() {
    if (!existsSync(this.#socketPath)) return false;
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

  /** Ends it like an administrator, and fails unless it ends cleanly. */
  async stop() {
    this.kill("SIGTERM");
    const { status, signal } = await this.ended();
    if (status !== 0) throw new Error(`the daemon's exit: ${status ?? signal}\n${this.log()}`);
  }
}

/** Another daemon removes what daemons have left that died in their test. */
async function endDevicesLeft() {
  if (!existsSync(UBLK_DEVICES) || readdirSync(UBLK_DEVICES).length === 0) return;
  const daemon = new Daemon({ name: "cleaner" });
  try {
    await daemon.untilServing();
    await daemon.endDevices();
  } finally {
    await daemon.destroy();
  }
}

async function endDevicesOf({ alive, client }) {
  if (!alive) return;
  for (const { id } of await client.snapshotCollect()) await client.snapshotDestroy(id);
  const { trackers } = await client.status();
  for (const { device } of trackers) await client.detach(device);
}

function childrenOf(pid) {
  const path = `/proc/${pid}/task/${pid}/children`;
  // Not in every kernel: CONFIG_PROC_CHILDREN. Without it, only supervisors may have children.
  if (!existsSync(path)) return [];
  return readFileSync(path, "utf8").trim().split(" ").filter(Boolean);
}

/** The daemon that the runner started for all scenarios of its VM, seen from one of them. */
export class SharedDaemon {
  client = new BlksnapClient({ socketPath: SOCKET_PATH, timeoutMs: CALL_LIMIT_MS });
  pid;

  constructor(pid) {
    this.pid = pid;
  }

  get alive() {
    return existsSync(`/proc/${this.pid}/exe`);
  }

  endDevices() {
    return endDevicesOf(this);
  }

  /** The runner stops it, and checks its exit status. */
  async stop() {}
}

/** Words of a blksnapctl command. */
export function ctlWords(...args) {
  return [join(BIN, "blksnapctl"), ...args];
}
