/**
 * blksnapd --supervise: keeps a daemon running, and others ready to replace it.
 *
 * ```
 *   supervisor ──┬── active    serves
 *                └── standby…  everything loaded, waits for its turn
 *
 *   active dies ──▶ "go" ──▶ standby takes the state directory over ──▶ a new standby is started
 *
 *   upgrade: active asks ──▶ fresh standby ──▶ "ready" ──▶ active leaves ──▶ "go"
 *            the old standbys stay until the new daemon serves: should it fail, the old program
 *            continues
 * ```
 *
 * Users of fronts wait meanwhile and see no error; a standby has already done most of the work of a start. Both have
 * the I/O-flusher mark, which children inherit, and their own mount namespace that follows the users' one: so the end
 * of the process that serves our devices never has to clean up file systems on them.
 */
import { ChildProcess, type SpawnOptions, spawn } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { becomeIoFlusher, bounded } from "@blksnap/uring";
import type { Logger } from "pino";
import { ExitStatus } from "./exit-status.js";
import {
  type PassedSocket,
  passableSockets,
  takePassedSockets,
  withPassedSockets,
} from "./passed-sockets.js";
import { stayAlive, surviveFinalKill } from "./process-setup.js";
import { RetryPace } from "./retry-pace.js";
import type { ServiceManager } from "./service-manager.js";
import type { ToDaemon, ToSupervisor } from "./supervisor-link.js";

/** A standby is started when the active daemon has had this time to settle. */
const STANDBY_DELAY_MS = 2_000;
/** A daemon that lived shorter than this makes the next one wait as long, which avoids a busy loop. */
const SHORT_LIFE_MS = 1_000;
/** Time limit for a fresh daemon to become ready for an upgrade. */
const READY_TIMEOUT_MS = 120_000;
/**
 * A standby that dies is retried after STANDBY_DELAY_MS, and after twice as long for each further failure in a row.
 */
const STANDBY_DELAY_MAX_MS = 60_000;
/** How long output of an ended process may still be in flight. */
const LAST_WORDS_TIMEOUT_MS = 30_000;
const UNSHARE = "/usr/bin/unshare";

/** A daemon process of either role. */
class Daemon {
  readonly process: ChildProcess;
  readonly startedMs: number = Date.now();
  /** It serves, or was asked to: its end needs no wait. */
  isActive = false;
  #refusal: string | undefined;
  /** Resolves with the version when it is loaded; rejects if it ends before. */
  readonly ready: Promise<string>;
  onServing: () => void = () => undefined;
  onSettled: () => void = () => undefined;
  onPrepare: () => void = () => undefined;
  onExit: (status: number | null, signal: string | null, why: string) => void = () => undefined;

  constructor(
    program: readonly string[],
    role: "--supervised" | "--standby",
    passed: readonly PassedSocket[],
  ) {
    const [command, ...args] = [...namespacePrefix(), ...program, role];
    const stdio = ["ignore", "inherit", "inherit"] as const;
    // The index is the descriptor number from PASSED_FD on.
    this.process = spawned(command as string, args, {
      stdio: [...stdio, ...passed.map(({ fd }) => fd), "ipc"],
      env: withPassedSockets(process.env, passed),
    });
    this.ready = new Promise((resolve, reject) => {
      this.process.on("message", (message) => {
        const said = message as ToSupervisor;
        if (said.type === "ready") resolve(said.version);
        else if (said.type === "refused") this.#refusal = said.why;
        else if (said.type === "serving") this.onServing();
        else if (said.type === "settled") this.onSettled();
        else if (said.type === "stays") surviveFinalKill();
        else this.onPrepare();
      });
      this.process.once("error", (error) => {
        reject(error);
        this.onExit(null, error.message, error.message);
      });
      const end = (status: number | null, signal: string | null) => {
        const why = reasonOf(status, signal, this.#refusal);
        reject(new Error(`it ended with ${why}`));
        this.onExit(status, signal, why);
      };
      this.process.once("exit", (status, signal) => {
        if (this.isActive) return end(status, signal);
        // Its output may arrive after its end.
        const late = setTimeout(end, LAST_WORDS_TIMEOUT_MS, status, signal);
        this.process.once("close", () => {
          clearTimeout(late);
          end(status, signal);
        });
      });
    });
    this.ready.catch(() => undefined);
  }

  get pid(): number {
    return this.process.pid ?? 0;
  }

  /** Its output may still be in flight. */
  get hasEnded(): boolean {
    return this.process.exitCode !== null || this.process.signalCode !== null;
  }

  send(message: ToDaemon): void {
    // The event "exit" reports its end.
    if (this.process.connected) this.process.send(message, () => undefined);
  }

  /** Ends a daemon that has never been active. */
  dismiss(): void {
    this.onExit = () => undefined;
    if (this.process.connected) this.process.disconnect();
  }
}

/** Node throws if there is no memory to fork, and emits other failures as an end. */
function spawned(command: string, args: readonly string[], options: SpawnOptions): ChildProcess {
  try {
    return spawn(command, args, options);
  } catch (error) {
    const never = new ChildProcess();
    process.nextTick(() => never.emit("error", error));
    return never;
  }
}

function reasonOf(status: number | null, signal: string | null, refusal: string | undefined) {
  return refusal === undefined ? `${status ?? signal}` : `${status}: ${refusal}`;
}

/** The messages to the service manager about daemons. */
type Notified = Pick<ServiceManager, "ready" | "status" | "stopping">;

/** Pauses before daemons are started; for tests, which would wait for most of their time. */
interface Pace {
  readonly standbyDelayMs: number;
  readonly shortLifeMs: number;
}

const PACE: Pace = { standbyDelayMs: STANDBY_DELAY_MS, shortLifeMs: SHORT_LIFE_MS };

export class Supervisor {
  readonly #program: readonly string[];
  readonly #passed: readonly PassedSocket[];
  readonly #manager: Notified | undefined;
  readonly #logger: Logger;
  readonly #done: (status: number) => void;
  #active: Daemon | undefined;
  /** Ready or getting ready, the oldest first. */
  #standbys: Daemon[] = [];
  readonly #standbysWanted: number;
  /** Standbys from before an upgrade, until the new daemon serves. */
  #fallbacks: Daemon[] = [];
  #hasServed = false;
  /** A request to end that came while no daemon was active. */
  #keptEnd: NodeJS.Signals | undefined;
  #preparing = false;
  readonly #pace: Pace;
  readonly #standbyPace: RetryPace;
  #standbyTimer: NodeJS.Timeout | undefined;

  /**
   * @param program command and arguments of a daemon, without its role
   * @param standbys how many daemons are kept ready; 0: a new one is started after a crash
   * @param done called with the exit status when a daemon has ended as requested, or cannot start
   * @param passed the sockets that the service manager has created, for all daemons
   */
  constructor(
    program: readonly string[],
    standbys: number,
    logger: Logger,
    done: (status: number) => void,
    manager?: Notified,
    passed: readonly PassedSocket[] = [],
    pace: Pace = PACE,
  ) {
    this.#program = program;
    this.#pace = pace;
    this.#standbyPace = new RetryPace(pace.standbyDelayMs, STANDBY_DELAY_MAX_MS);
    this.#passed = passed;
    this.#manager = manager;
    this.#standbysWanted = standbys;
    this.#logger = logger;
    this.#done = done;
  }

  start(): void {
    this.#setActive(new Daemon(this.#program, "--supervised", this.#passed));
  }

  /** Passes a request to end on to the daemon that serves; it may refuse. */
  signal(signal: NodeJS.Signals): void {
    if (this.#active === undefined) this.#keptEnd = signal;
    else this.#active.send({ type: "end", signal });
  }

  #setActive(daemon: Daemon): void {
    this.#active = daemon;
    daemon.isActive = true;
    this.#logger.info({ pid: daemon.pid }, "active daemon");
    daemon.onServing = () => this.#onServing();
    daemon.onSettled = () => this.#manager?.ready(`pid ${daemon.pid} serves`);
    daemon.onPrepare = () => void this.#prepare(daemon);
    daemon.onExit = (status, signal) => this.#onActiveExit(daemon, status, signal);
    if (this.#keptEnd !== undefined) daemon.send({ type: "end", signal: this.#keptEnd });
    this.#keptEnd = undefined;
  }

  #onServing(): void {
    this.#hasServed = true;
    for (const fallback of this.#fallbacks.splice(0)) fallback.dismiss();
    // The next daemon may have another program or configuration.
    this.#standbyPace.succeeded();
    this.#ensureStandbysIn(this.#pace.standbyDelayMs);
  }

  #onActiveExit(daemon: Daemon, status: number | null, signal: string | null): void {
    this.#active = undefined;
    // Retrying does not help with a usage error or a host without ublk.
    const isAsked = status === ExitStatus.ENDED || status === ExitStatus.LEFT;
    const isFinal = isAsked || !this.#hasServed;
    if (isFinal && status !== null) {
      this.#end(status);
      return;
    }
    const { pid } = daemon;
    this.#manager?.status(`pid ${pid} has ended, devices wait for the next daemon`);
    if (status === ExitStatus.HANDED_OVER) {
      this.#logger.info({ pid }, "daemon handed over to its successor");
      this.#replace();
      return;
    }
    this.#logger.error({ pid, status, signal }, "daemon died; the next one resumes");
    const { shortLifeMs } = this.#pace;
    const isShortLife = Date.now() - daemon.startedMs < shortLifeMs;
    setTimeout(() => this.#replace(), isShortLife ? shortLifeMs : 0);
  }

  /** A process that has ended without its last message is of no use. */
  #nextInLine(): Daemon | undefined {
    for (;;) {
      const next = this.#standbys.shift() ?? this.#fallbacks.shift();
      if (next?.hasEnded !== true) return next;
    }
  }

  #replace(): void {
    const next = this.#nextInLine();
    if (next === undefined) {
      this.start();
      return;
    }
    next.send({ type: "go" });
    this.#setActive(next);
  }

  /** One timer for all: the last call decides. */
  #ensureStandbysIn(delayMs: number): void {
    clearTimeout(this.#standbyTimer);
    this.#standbyTimer = setTimeout(() => this.#ensureStandbys(), delayMs);
  }

  #ensureStandbys(): void {
    if (this.#active === undefined || this.#preparing) return;
    while (this.#standbys.length < this.#standbysWanted) {
      this.#standbys.push(this.#standby());
    }
  }

  /** A new standby, removed from the list when it ends. */
  #standby(): Daemon {
    const daemon = new Daemon(this.#program, "--standby", this.#passed);
    daemon.onExit = (_status, _signal, why) => {
      this.#standbys = this.#standbys.filter((one) => one !== daemon);
      this.#fallbacks = this.#fallbacks.filter((one) => one !== daemon);
      if (Date.now() - daemon.startedMs >= STANDBY_DELAY_MAX_MS) this.#standbyPace.succeeded();
      const { delayMs, isNews } = this.#standbyPace.failed(why);
      const text =
        "a standby has ended; retrying at growing intervals, logged again if the reason changes";
      if (isNews) this.#logger.warn({ pid: daemon.pid, why }, text);
      this.#ensureStandbysIn(delayMs);
    };
    return daemon;
  }

  /** Starts a daemon from the program that is on disk now, for the active one to leave to. */
  async #prepare(active: Daemon): Promise<void> {
    if (this.#preparing) {
      active.send({ type: "unprepared", problem: "another upgrade is under way" });
      return;
    }
    this.#preparing = true;
    const fresh = this.#standby();
    try {
      const version = await bounded(fresh.ready, READY_TIMEOUT_MS, () => {
        return new Error(`it was not ready after ${READY_TIMEOUT_MS} ms`);
      });
      this.#fallbacks.push(...this.#standbys);
      this.#standbys = [fresh];
      active.send({ type: "prepared", pid: fresh.pid, version });
    } catch (error) {
      fresh.dismiss();
      active.send({ type: "unprepared", problem: (error as Error).message });
    } finally {
      this.#preparing = false;
      this.#ensureStandbysIn(this.#pace.standbyDelayMs);
    }
  }

  #end(status: number): void {
    clearTimeout(this.#standbyTimer);
    for (const daemon of [...this.#standbys, ...this.#fallbacks]) daemon.dismiss();
    this.#manager?.stopping();
    this.#done(status);
  }
}

/**
 * The daemon's own mount namespace, if util-linux is installed and the users' root is a shared mount (as systemd
 * makes it): otherwise the namespace would not follow later mounts and unmounts, and keep file systems busy.
 */
function namespacePrefix(): string[] {
  const shared = isSharedRoot(readFileSync("/proc/self/mountinfo", "utf8"));
  return shared && existsSync(UNSHARE) ? [UNSHARE, "--mount", "--propagation", "slave"] : [];
}

/** Whether mounts below "/" propagate to namespaces made from this one, from mountinfo. */
export function isSharedRoot(mountinfo: string): boolean {
  const root = mountinfo.split("\n").findLast((line) => line.split(" ")[4] === "/");
  return root?.split(" - ")[0]?.includes(" shared:") ?? false;
}

/**
 * Runs until a daemon has ended as requested; returns its exit status.
 * @param standbys how many daemons are kept ready; 0: a new one is started after a crash
 */
export function supervise(
  args: readonly string[],
  standbys: number,
  logger: Logger,
  manager: ServiceManager,
): Promise<number> {
  for (const problem of [becomeIoFlusher(), stayAlive()]) {
    if (problem !== undefined) logger.warn({ problem }, "the daemon is not protected");
  }
  const program = [process.execPath, process.argv[1] as string, ...args];
  const passed = passableSockets(takePassedSockets(process.env, process.pid));
  return new Promise((resolve) => {
    const supervisor = new Supervisor(program, standbys, logger, resolve, manager, passed);
    for (const name of ["SIGTERM", "SIGINT"] as const) {
      process.on(name, (signal) => supervisor.signal(signal));
    }
    process.on("SIGHUP", () => logger.warn("SIGHUP is ignored"));
    supervisor.start();
  });
}
