/**
 * While there is a front of which no record tells, nothing is attached (unknown-fronts.ts). Once users have given it up,
 * persistent trackers that were to be attached at the start come back by themselves.
 */
import { setTimeout as sleep } from "node:timers/promises";
import type { DriverContext } from "../context.js";
import { LATE_RECOVERY_INTERVAL_MS } from "../time-limits.js";
import type { UnknownFronts } from "./unknown-fronts.js";

export class HeldBack {
  readonly #unknown: Pick<UnknownFronts, "areNone" | "names">;
  readonly #intervalMs: number;
  readonly #stopping = new AbortController();
  /** Ends when nothing is held back any more; false: this daemon ends before that. */
  readonly over: Promise<boolean>;

  constructor(
    unknown: Pick<UnknownFronts, "areNone" | "names">,
    intervalMs: number = LATE_RECOVERY_INTERVAL_MS,
  ) {
    this.#unknown = unknown;
    this.#intervalMs = intervalMs;
    this.over = this.#untilNone();
  }

  /** As it was known last. */
  get isHolding(): boolean {
    return this.#unknown.names.length > 0;
  }

  stop(): void {
    this.#stopping.abort();
  }

  /** @param attach what users would call. What fails is in the log */
  async attachAll(
    devices: readonly string[],
    attach: (device: string) => Promise<unknown>,
    logger: DriverContext["logger"],
  ): Promise<void> {
    if (devices.length === 0 || !(await this.over)) return;
    for (const device of devices) {
      await attach(device).then(
        () => logger.warn({ device }, "attached again: the front that held it back is given up"),
        (error: unknown) => logger.error({ device, err: error }, "it is not attached again"),
      );
    }
  }

  async #untilNone(): Promise<boolean> {
    const { signal } = this.#stopping;
    while (!signal.aborted) {
      // The kernel may not answer now, and does later.
      if (await this.#unknown.areNone().catch(() => false)) return true;
      await sleep(this.#intervalMs, undefined, { ref: false, signal }).catch(() => undefined);
    }
    return false;
  }
}
