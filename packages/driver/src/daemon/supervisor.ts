/**
 * blksnapd --supervise: keeps a daemon running, and others ready to go on in its place.
 *
 * ```
 *   supervisor ──┬── active    serves
 *                └── standby…  everything loaded, waits for a line on its standard input
 *
 *   active dies ──▶ "go" ──▶ standby takes the state directory over ──▶ a new standby is started
 * ```
 *
 * Users of fronts wait meanwhile and see no error; most of what a fresh start would take has been
 * done before. Both run with the I/O-flusher mark, which children inherit, and in a mount namespace
 * of their own that follows the users' one: file systems on our devices are then never cleaned up by
 * the end of the process that serves them.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import type { Logger } from "pino";
import { becomeIoFlusher } from "../system/process-setup.js";

/** The option that makes a daemon a standby; for the supervisor only. */
export const STANDBY_OPTION = "--standby";

/** A standby is started when the active daemon has had this time to settle. */
const STANDBY_DELAY_MS = 2_000;
/** After a daemon that lived shorter than this, the next one waits as long: no busy loop. */
const SHORT_LIFE_MS = 1_000;
const UNSHARE = "/usr/bin/unshare";

class Supervisor {
  readonly #program: readonly string[];
  readonly #logger: Logger;
  readonly #done: (status: number) => void;
  #active: ChildProcess | undefined;
  /** Ready or getting ready, the oldest first. */
  readonly #standbys: ChildProcess[] = [];
  readonly #standbysWanted: number;
  #ending = false;

  constructor(
    program: readonly string[],
    standbys: number,
    logger: Logger,
    done: (status: number) => void,
  ) {
    this.#program = program;
    this.#standbysWanted = standbys;
    this.#logger = logger;
    this.#done = done;
  }

  start(): void {
    this.#setActive(this.#spawn([]));
  }

  /** Passes a signal on to the daemon that serves; it may refuse to end. */
  signal(signal: NodeJS.Signals): void {
    this.#ending = true;
    this.#active?.kill(signal);
  }

  #spawn(more: readonly string[]): ChildProcess {
    const [command, ...args] = [...namespacePrefix(), ...this.#program, ...more];
    return spawn(command as string, args, { stdio: ["pipe", "inherit", "inherit"] });
  }

  #setActive(child: ChildProcess): void {
    const startedMs = Date.now();
    this.#active = child;
    this.#logger.info({ pid: child.pid }, "active daemon");
    child.once("exit", (status, signal) => {
      this.#active = undefined;
      if (status === 0 || (this.#ending && this.#standbys.length === 0)) {
        this.#end(status ?? 1);
        return;
      }
      // A usage error or a host without ublk does not get better by trying again.
      const lifeMs = Date.now() - startedMs;
      if (this.#standbys.length === 0 && lifeMs < STANDBY_DELAY_MS && status !== null) {
        this.#end(status);
        return;
      }
      this.#logger.error({ pid: child.pid, status, signal }, "daemon died; the next one goes on");
      setTimeout(() => this.#replace(), lifeMs < SHORT_LIFE_MS ? SHORT_LIFE_MS : 0);
    });
    setTimeout(() => this.#ensureStandbys(), STANDBY_DELAY_MS);
  }

  #replace(): void {
    const standby = this.#standbys.shift();
    if (standby === undefined) {
      this.start();
      return;
    }
    standby.removeAllListeners("exit");
    standby.stdin?.write("go\n");
    this.#setActive(standby);
  }

  #ensureStandbys(): void {
    while (this.#standbys.length < this.#standbysWanted) {
      if (this.#active === undefined || this.#ending) return;
      this.#startStandby();
    }
  }

  #startStandby(): void {
    const child = this.#spawn([STANDBY_OPTION]);
    this.#standbys.push(child);
    child.stdin?.on("error", () => undefined);
    child.once("exit", (status, signal) => {
      const at = this.#standbys.indexOf(child);
      if (at < 0) return;
      this.#standbys.splice(at, 1);
      this.#logger.warn({ pid: child.pid, status, signal }, "standby died");
      setTimeout(() => this.#ensureStandbys(), STANDBY_DELAY_MS);
    });
  }

  #end(status: number): void {
    // Its standard input ends with this process; that is what a standby ends on.
    for (const standby of this.#standbys) {
      standby.removeAllListeners("exit");
      standby.stdin?.end();
    }
    this.#done(status);
  }
}

/**
 * A mount namespace of its own for the daemon, where util-linux is installed and the users' root is a
 * shared mount (as systemd makes it): elsewhere the namespace would not learn of what is mounted and
 * unmounted later, and keep file systems busy.
 */
function namespacePrefix(): string[] {
  const root = readFileSync("/proc/self/mountinfo", "utf8")
    .split("\n")
    .findLast((line) => line.split(" ")[4] === "/");
  const shared = root?.split(" - ")[0]?.includes(" shared:") ?? false;
  return shared && existsSync(UNSHARE) ? [UNSHARE, "--mount", "--propagation", "slave"] : [];
}

/**
 * Runs until a daemon has ended by itself; answers its exit status.
 * @param standbys how many daemons are kept ready; 0: a new one is started after a crash
 */
export function supervise(
  args: readonly string[],
  standbys: number,
  logger: Logger,
): Promise<number> {
  const problem = becomeIoFlusher();
  if (problem !== undefined) logger.warn({ problem }, "the daemon is not an I/O flusher");
  const program = [process.execPath, process.argv[1] as string, ...args];
  return new Promise((resolve) => {
    const supervisor = new Supervisor(program, standbys, logger, resolve);
    process.on("SIGTERM", (signal) => supervisor.signal(signal));
    process.on("SIGINT", (signal) => supervisor.signal(signal));
    supervisor.start();
  });
}

/** In a standby: resolves when it is its turn; ends the process when the supervisor has ended. */
export function untilTurn(): Promise<void> {
  return new Promise((resolve) => {
    process.stdin.once("data", () => {
      process.stdin.removeAllListeners("end");
      process.stdin.destroy();
      resolve();
    });
    process.stdin.once("end", () => process.exit(0));
  });
}
