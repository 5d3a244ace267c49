import { cpus } from "node:os";
import { DRIVER_PLACES_MAX, ReactorThread } from "@blksnap/uring";
import type { Logger } from "pino";
import { errorFrom } from "./carried-error.js";
import { abandon, makeClaim, NoAnswerError, withdraw } from "./claim.js";
import type {
  FromReactor,
  ReactorNotice,
  ReactorRequest,
  ReactorSettings,
  ToReactor,
} from "./messages.js";
import { type ReactorState, Watchdog } from "./watchdog.js";

/** Time limit of a reactor's answer, unless the caller gives another. */
const REPLY_TIMEOUT_MS = 30_000;
/** More reactors would only take memory: one serves hundreds of thousands of requests a second. */
const REACTORS_MAX = 16;
const RING_ENTRIES_MIN = 256;

export type LostHandler = (reactor: number, error: Error) => void;
export type NoticeHandler = (reactor: number, notice: ReactorNotice) => void;

/** A running reactor, as ReactorThread is one. */
export type RunningReactor = Pick<ReactorThread, "post" | "wake" | "stop">;

/**
 * Starts a reactor. Calls `onMessage` with each FromReactor, and `onExit` when the reactor has ended, with an error if
 * it ended by itself.
 */
export type StartReactor = (
  settings: ReactorSettings,
  onMessage: (message: unknown) => void,
  onExit: (error: Error | undefined) => void,
) => RunningReactor;

/** Starts it on a thread of its own. */
export const startReactorThread: StartReactor = (settings, onMessage, onExit) =>
  new ReactorThread(new URL("./worker.js", import.meta.url), settings, onMessage, onExit);

interface Waiter {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
}

function carriesDescriptors({ type }: ReactorRequest): boolean {
  return (
    type === "attach" ||
    type === "prepareArea" ||
    type === "wakeArea" ||
    type === "openImage" ||
    type === "mirrorJournal" ||
    type === "grow" ||
    type === "serveNbd"
  );
}

/** One reactor's thread, with the requests that it has not answered yet. */
class ReactorHandle {
  devices = 0;
  readonly index: number;
  /** Resolves when the reactor's loop is about to run. */
  readonly ready: Promise<void>;
  #onReady: () => void = () => undefined;
  #onFailure: (error: Error) => void = () => undefined;
  readonly #heartbeat: Int32Array;
  readonly #thread: RunningReactor;
  readonly #waiters = new Map<number, Waiter>();
  #nextId = 1;
  #dead: Error | undefined;

  constructor(
    start: StartReactor,
    settings: ReactorSettings,
    onNotice: NoticeHandler,
    onLost: LostHandler,
  ) {
    this.index = settings.index;
    this.#heartbeat = new Int32Array(settings.heartbeat);
    this.ready = new Promise((resolve, reject) => {
      this.#onReady = resolve;
      this.#onFailure = reject;
    });
    this.ready.catch(() => undefined);
    this.#thread = start(
      settings,
      (message) => this.#onMessage(message as FromReactor, onNotice),
      (error) => {
        if (error === undefined) return;
        this.#dead = error;
        for (const { reject } of this.#waiters.values()) reject(error);
        this.#waiters.clear();
        this.#onFailure(error);
        onLost(this.index, error);
      },
    );
  }

  /** Turns of the reactor's loop so far, in 32 bits. */
  get turns(): number {
    return Atomics.load(this.#heartbeat, 0);
  }

  /** Makes the loop take a turn. */
  wake(): void {
    if (this.#dead === undefined) this.#thread.wake();
  }

  send(message: ToReactor): void {
    if (this.#dead === undefined) this.#thread.post(message);
  }

  request(request: ReactorRequest, timeoutMs: number): Promise<unknown> {
    if (this.#dead !== undefined) return Promise.reject(this.#dead);
    const id = this.#nextId++;
    const claim = carriesDescriptors(request) ? makeClaim() : undefined;
    const answer = new Promise<unknown>((resolve, reject) => {
      this.#waiters.set(id, { resolve, reject });
    });
    this.#thread.post({ id, request, claim } satisfies ToReactor);
    let timer: NodeJS.Timeout | undefined;
    const timeout = new Promise<never>((_, reject) => {
      const giveUp = (isTaken: boolean): void => {
        this.#waiters.delete(id);
        const what = `reactor ${this.index} did not answer "${request.type}" in ${timeoutMs} ms`;
        reject(new NoAnswerError(what, isTaken));
      };
      timer = setTimeout(() => {
        if (claim === undefined) giveUp(true);
        else if (withdraw(claim)) giveUp(false);
        // The reactor uses the descriptors: they must not be closed now. It will be done soon.
        else {
          timer = setTimeout(() => {
            abandon(claim);
            giveUp(true);
          }, timeoutMs);
        }
      }, timeoutMs);
    });
    return Promise.race([answer, timeout]).finally(() => clearTimeout(timer));
  }

  stop(): Promise<void> {
    return this.#thread.stop({ id: 0, request: { type: "stop" } } satisfies ToReactor);
  }

  #onMessage(message: FromReactor, onNotice: NoticeHandler): void {
    if ("notice" in message) {
      if (message.notice === "ready") this.#onReady();
      onNotice(this.index, message);
      return;
    }
    const waiter = this.#waiters.get(message.re);
    this.#waiters.delete(message.re);
    if (message.error === undefined) waiter?.resolve(message.value);
    else waiter?.reject(errorFrom(message.error));
  }
}

export interface ReactorPoolOptions {
  /** 1 to 16; default: one per CPU, at most 4. */
  readonly reactors?: number;
  /** Tags of a front's queue, and of an image's. */
  readonly frontDepth: number;
  readonly imageDepth: number;
  readonly ioTimeoutMs: number;
  readonly logger: Logger;
  /** The process exits with this status at once if a reactor ends by itself. */
  readonly lostStatus?: number | undefined;
  /** Set if no file system of this machine lies on a served device. */
  readonly isFlusherOptional?: boolean | undefined;
  readonly onNotice: NoticeHandler;
  /** A reactor has ended by itself. */
  readonly onLost: LostHandler;
  /** Default: each reactor on a thread of its own. */
  readonly startReactor?: StartReactor | undefined;
}

/** The reactors; each device belongs to one of them from attach to detach. */
export class ReactorPool {
  readonly #handles: ReactorHandle[] = [];
  readonly #watchdog: Watchdog;

  constructor(options: ReactorPoolOptions) {
    const count = Math.min(options.reactors ?? Math.min(cpus().length, 4), REACTORS_MAX);
    for (let index = 0; index < count; index++) {
      const heartbeat = new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT);
      const { frontDepth, imageDepth, ioTimeoutMs, lostStatus } = options;
      const ringEntries = Math.max(RING_ENTRIES_MIN, frontDepth, imageDepth);
      const { isFlusherOptional } = options;
      const limits = { imageDepth, ioTimeoutMs, ringEntries };
      const settings = { index, ...limits, heartbeat, lostStatus, isFlusherOptional };
      const { startReactor = startReactorThread, onNotice, onLost } = options;
      this.#handles.push(new ReactorHandle(startReactor, settings, onNotice, onLost));
    }
    this.#watchdog = new Watchdog(this.#handles, options.logger);
    this.#watchdog.start();
  }

  /** Resolves when all reactors run. @throws the error of one that cannot */
  async ready(): Promise<void> {
    await Promise.all(this.#handles.map(({ ready }) => ready));
  }

  /** Makes each reactor compile the data path when it has time. @param zeroCopy fronts will use it */
  warmUp(zeroCopy: boolean): void {
    for (const handle of this.#handles) handle.send({ type: "warmUp", zeroCopy });
  }

  /** The state of each reactor. */
  get states(): readonly ReactorState[] {
    return this.#watchdog.states;
  }

  get count(): number {
    return this.#handles.length;
  }

  /** The reactor with the fewest devices; give it back with release(). */
  assign(): number {
    const handle = this.#handles.reduce((best, next) =>
      next.devices < best.devices ? next : best,
    );
    handle.devices++;
    return handle.index;
  }

  /** Whether the ring has room for the pages of all requests of its devices, with queues of this depth. */
  hasRoomForPages(index: number, queueDepth: number): boolean {
    return this.#handle(index).devices * queueDepth <= DRIVER_PLACES_MAX;
  }

  release(index: number): void {
    this.#handle(index).devices--;
  }

  send(index: number, message: ToReactor): void {
    this.#handle(index).send(message);
  }

  /** Sends a request and waits for its answer; rejects with the reactor's error, or after the time limit. */
  request<Value = void>(
    index: number,
    request: ReactorRequest,
    timeoutMs: number = REPLY_TIMEOUT_MS,
  ): Promise<Value> {
    return this.#handle(index).request(request, timeoutMs) as Promise<Value>;
  }

  async stop(): Promise<void> {
    this.#watchdog.stop();
    await Promise.all(this.#handles.map((handle) => handle.stop()));
  }

  #handle(index: number): ReactorHandle {
    const handle = this.#handles[index];
    if (handle === undefined) throw new Error(`no reactor ${index}`);
    return handle;
  }
}
