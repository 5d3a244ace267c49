/**
 * Checks from the main thread whether the reactors' loops keep turning.
 *
 * ```
 *   check, every 250 ms    turned since the last check   all is well
 *                          not                           it sleeps, or hangs: it is woken once
 *                          still not, a second later     it hangs: reported once, and again when it continues
 * ```
 *
 * A busy reactor pays one store per turn, an idle one two wake-ups per second, and one without devices nothing. The
 * time counts from the wake-up, so a main thread that is late itself reports no reactor.
 */
const CHECK_INTERVAL_MS = 250;
const STALL_MS = 1_000;

/** The watched part of a reactor. */
export interface Watched {
  readonly index: number;
  readonly devices: number;
  /** Changes with every turn of the loop. */
  readonly turns: number;
  wake(): void;
}

export interface ReactorState {
  readonly index: number;
  readonly devices: number;
  /** Turns of its loop so far. */
  readonly turns: number;
  /** How long it has not turned; 0 while it does. */
  readonly stalledMs: number;
  /** How often it has stalled so far. */
  readonly stalls: number;
}

/** The used part of pino's logger. */
export interface WatchdogLogger {
  warn(details: object, message: string): void;
  error(details: object, message: string): void;
}

interface Watch {
  readonly reactor: Watched;
  turns: number;
  wokenAtMs: number | undefined;
  isStalled: boolean;
  stalls: number;
}

export class Watchdog {
  readonly #watches: readonly Watch[];
  readonly #logger: WatchdogLogger;
  readonly #nowMs: () => number;
  #timer: NodeJS.Timeout | undefined;

  constructor(
    reactors: readonly Watched[],
    logger: WatchdogLogger,
    nowMs: () => number = () => performance.now(),
  ) {
    this.#watches = reactors.map((reactor) => ({
      reactor,
      turns: reactor.turns,
      wokenAtMs: undefined,
      isStalled: false,
      stalls: 0,
    }));
    this.#logger = logger;
    this.#nowMs = nowMs;
  }

  /** Starts checking; does not keep the process alive. */
  start(): void {
    this.#timer = setInterval(() => this.check(), CHECK_INTERVAL_MS);
    this.#timer.unref();
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  get states(): readonly ReactorState[] {
    return this.#watches.map(({ reactor, isStalled, wokenAtMs, stalls }) => ({
      index: reactor.index,
      devices: reactor.devices,
      turns: reactor.turns,
      stalledMs: isStalled ? Math.round(this.#nowMs() - (wokenAtMs ?? this.#nowMs())) : 0,
      stalls,
    }));
  }

  check(): void {
    for (const watch of this.#watches) this.#check(watch);
  }

  #check(watch: Watch): void {
    const { reactor } = watch;
    const { turns } = reactor;
    if (turns !== watch.turns || reactor.devices === 0) {
      if (watch.isStalled) this.#onTurn(watch);
      watch.turns = turns;
      watch.wokenAtMs = undefined;
    } else if (watch.wokenAtMs === undefined) {
      watch.wokenAtMs = this.#nowMs();
      reactor.wake();
    } else if (!watch.isStalled && this.#nowMs() - watch.wokenAtMs >= STALL_MS) {
      watch.isStalled = true;
      watch.stalls++;
      const { index, devices } = reactor;
      this.#logger.error(
        { reactor: index, devices },
        `reactor ${index} has not turned for a second: its devices do not answer`,
      );
    }
  }

  #onTurn(watch: Watch): void {
    watch.isStalled = false;
    const { index } = watch.reactor;
    const stalledMs = Math.round(this.#nowMs() - (watch.wokenAtMs ?? 0));
    this.#logger.warn({ reactor: index, stalledMs }, `reactor ${index} turns again`);
  }
}
