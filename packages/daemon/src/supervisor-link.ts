/**
 * The channel between a supervisor and the daemons that it starts.
 *
 * ```
 *   standby   ── ready ────▶ supervisor     everything is loaded
 *             ── refused ──▶                the configuration is wrong: it ends
 *             ◀─── go ──────                it is your turn
 *   active    ── serving ──▶                devices and control API are there
 *             ── settled ──▶                devices of the configuration are attached, or given up
 *             ── stays ────▶                devices are in use while the system goes down: live on with it
 *             ── prepare ──▶                start one from the program on disk
 *             ◀── prepared ─                it is ready: leave to it
 *             ◀── end ──────                a stop of the daemon was asked for
 * ```
 */
import { ControlError } from "@blksnap/api";
import { DAEMON_VERSION } from "@blksnap/driver";

export type ToDaemon =
  | { readonly type: "go" }
  | { readonly type: "end"; readonly signal: NodeJS.Signals }
  | ({ readonly type: "prepared" } & Successor)
  | { readonly type: "unprepared"; readonly problem: string };

export type ToSupervisor =
  | { readonly type: "ready"; readonly version: string }
  | { readonly type: "refused"; readonly why: string }
  | { readonly type: "serving" }
  | { readonly type: "settled" }
  | { readonly type: "stays" }
  | { readonly type: "prepare" };

/** The daemon that replaces this one. */
export interface Successor {
  readonly pid: number;
  readonly version: string;
}

/** Longer than the supervisor's own limit for a fresh daemon. */
const PREPARE_TIMEOUT_MS = 150_000;
const LOST: ToDaemon = { type: "unprepared", problem: "the supervisor has ended" };
const SILENT: ToDaemon = { type: "unprepared", problem: "the supervisor does not answer" };

/** The daemon's side of the channel. */
export class SupervisorLink {
  #onPrepared: ((message: ToDaemon) => void) | undefined;
  #onTurn: (() => void) | undefined;
  #turnCame = false;
  #onEnd: ((signal: NodeJS.Signals) => void) | undefined;
  #onLost: (() => void) | undefined;
  #keptEnd: NodeJS.Signals | undefined;

  constructor() {
    process.on("message", (message) => this.#onMessage(message as ToDaemon));
    process.on("disconnect", () => {
      this.#onPrepared?.({ type: "unprepared", problem: "the supervisor has ended" });
      this.#onLost?.();
    });
  }

  get connected(): boolean {
    return process.connected;
  }

  /** Reports that everything is loaded, and waits for the message to continue. */
  untilTurn(): Promise<void> {
    return new Promise((resolve) => {
      this.#onTurn = resolve;
      if (this.#turnCame) resolve();
      this.#send({ type: "ready", version: DAEMON_VERSION });
    });
  }

  serving(): void {
    this.#send({ type: "serving" });
  }

  settled(): void {
    this.#send({ type: "settled" });
  }

  stays(): void {
    this.#send({ type: "stays" });
  }

  /**
   * Makes the supervisor start a daemon from the program that is on disk now.
   * @throws ControlError UPGRADE_FAILED if that one does not become ready
   */
  async prepareSuccessor(): Promise<Successor> {
    let timer: NodeJS.Timeout | undefined;
    const answer = await new Promise<ToDaemon>((resolve) => {
      this.#onPrepared = resolve;
      timer = setTimeout(resolve, PREPARE_TIMEOUT_MS, SILENT);
      this.#send({ type: "prepare" });
    });
    clearTimeout(timer);
    this.#onPrepared = undefined;
    if (answer.type === "prepared") return { pid: answer.pid, version: answer.version };
    const problem = answer.type === "unprepared" ? answer.problem : "no answer";
    throw new ControlError("UPGRADE_FAILED", `the new daemon did not become ready: ${problem}`);
  }

  /** Called for each request that the daemon ends, also an earlier one. */
  onEnd(handler: (signal: NodeJS.Signals) => void): void {
    this.#onEnd = handler;
    if (this.#keptEnd !== undefined) handler(this.#keptEnd);
    this.#keptEnd = undefined;
  }

  /** Called when the supervisor is gone. */
  onLost(handler: () => void): void {
    this.#onLost = handler;
    if (!process.connected) handler();
  }

  /** From now on the channel does not keep the process alive. */
  close(): void {
    this.#onLost = undefined;
    if (process.connected) process.disconnect();
  }

  #send(message: ToSupervisor): void {
    // Without a supervisor, onLost and prepareSuccessor report it.
    if (process.connected) process.send?.(message, undefined, undefined, () => undefined);
    else this.#onPrepared?.(LOST);
  }

  #onMessage(message: ToDaemon): void {
    if (message.type === "go") {
      this.#turnCame = true;
      this.#onTurn?.();
    } else if (message.type !== "end") this.#onPrepared?.(message);
    else if (this.#onEnd !== undefined) this.#onEnd(message.signal);
    else this.#keptEnd = message.signal;
  }
}
