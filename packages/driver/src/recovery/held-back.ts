/**
 * While there is a front without a record, nothing is attached (unknown-fronts.ts). This class reports when users have
 * given that front up: what the configuration names is attached then. Persistent trackers are not: the name on their
 * record may lead to another disk by then.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { LATE_RECOVERY_INTERVAL_MS } from "../time-limits.js";
import type { UnknownFronts } from "./unknown-fronts.js";

export class HeldBack {
  readonly #unknown: Pick<UnknownFronts, "areNone" | "names">;
  readonly #intervalMs: number;
  readonly #stopping = new AbortController();
  /** Resolves to true when nothing is held back any more; to false if this daemon ends before that. */
  readonly over: Promise<boolean>;

  constructor(
    unknown: Pick<UnknownFronts, "areNone" | "names">,
    intervalMs: number = LATE_RECOVERY_INTERVAL_MS,
  ) {
    this.#unknown = unknown;
    this.#intervalMs = intervalMs;
    this.over = this.#untilNone();
  }

  /** The last known state. */
  get isHolding(): boolean {
    return this.#unknown.names.length > 0;
  }

  stop(): void {
    this.#stopping.abort();
  }

  async #untilNone(): Promise<boolean> {
    const { signal } = this.#stopping;
    while (!signal.aborted) {
      // The kernel may fail to answer now and answer later.
      if (await this.#unknown.areNone().catch(() => false)) return true;
      await sleep(this.#intervalMs, undefined, { ref: false, signal }).catch(() => undefined);
    }
    return false;
  }
}
