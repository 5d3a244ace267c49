/** Flushes what was written through a front. */
import { ControlError } from "@blksnap/api";
import { errnoName } from "@blksnap/errors";
import { bounded } from "@blksnap/uring";
import type { Logger } from "pino";
import { FRONT_SYNC_TIMEOUT_MS } from "../time-limits.js";
import type { Tracker } from "./tracker.js";

type Flushed = Pick<Tracker, "device" | "front" | "backing" | "presentCapacityBytes">;

export class FrontFlush {
  readonly #tracker: Flushed;
  readonly #logger: Logger;
  readonly #timeoutMs: number;
  #hasFailed = false;
  /** Until its status was seen, which may be the only report of a failed write. */
  #syncing: Promise<number> | undefined;
  /** Negative errno of a sync that ended after its caller had given up. */
  #lateStatus = 0;

  constructor(tracker: Flushed, logger: Logger, timeoutMs: number = FRONT_SYNC_TIMEOUT_MS) {
    this.#tracker = tracker;
    this.#logger = logger;
    this.#timeoutMs = timeoutMs;
  }

  /**
   * Writes the front's page cache to the original. This process may be killed meanwhile.
   * @param giveUp waits without a time limit, for callers that have their own, and only logs failures
   * @throws ControlError NO_ANSWER: it continues, and the next call waits for it; DEVICE_FAILED, only at the first
   * failure
   */
  async run(giveUp: boolean): Promise<void> {
    const { device, front, backing } = this.#tracker;
    const late = await this.#ended(giveUp);
    this.#lateStatus ||= late;
    // Also after a late one, which may have begun before the latest writes.
    this.#syncing = front.sync(backing.fd);
    const last = await this.#ended(giveUp);
    const status = this.#lateStatus || last;
    this.#lateStatus = 0;
    if (status === 0) return;
    const text = `the last writes to ${front.path} did not all reach ${device}`;
    const name = errnoName(status);
    const isGone = async () => (await this.#tracker.presentCapacityBytes()) === 0;
    if (giveUp || this.#hasFailed || (await isGone())) {
      this.#logger.error({ device, errno: name }, text);
      return;
    }
    this.#hasFailed = true;
    const hint = "See dmesg; another detach gives these writes up";
    throw new ControlError("DEVICE_FAILED", text, { errnoName: name, hint });
  }

  /** The status of the sync that was begun last. @throws ControlError NO_ANSWER */
  async #ended(giveUp: boolean): Promise<number> {
    const syncing = this.#syncing ?? Promise.resolve(0);
    let isLate = false;
    try {
      if (giveUp) return await syncing;
      return await bounded(syncing, this.#timeoutMs, () => {
        isLate = true;
        return this.#noAnswer();
      });
    } finally {
      if (!isLate) this.#syncing = undefined;
    }
  }

  #noAnswer(): ControlError {
    const { device, front } = this.#tracker;
    const what = `the last writes to ${front.path} have not all reached ${device} in ${this.#timeoutMs} ms`;
    const hint = "They continue, and it stays attached: see dmesg, and detach it again";
    return new ControlError("NO_ANSWER", what, { hint });
  }
}
