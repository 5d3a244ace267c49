/**
 * While there is a front of which no record tells, nothing is attached (unknown-fronts.ts). This tells when users have
 * given it up: what the configuration names is attached then. Persistent trackers are not: the name on their record may
 * lead to another disk by then.
 */
import { setTimeout as sleep } from "node:timers/promises";
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
