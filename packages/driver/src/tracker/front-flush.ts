/** Flushes what was written through a front. */
import { ControlError } from "@blksnap/api";
import { errnoName } from "@blksnap/errors";
import type { Logger } from "pino";
import type { Tracker } from "./tracker.js";

type Flushed = Pick<Tracker, "device" | "front" | "backing" | "presentCapacityBytes">;

export class FrontFlush {
  readonly #tracker: Flushed;
  readonly #logger: Logger;
  #hasFailed = false;

  constructor(tracker: Flushed, logger: Logger) {
    this.#tracker = tracker;
    this.#logger = logger;
  }

  /**
   * Writes the front's page cache to the original. That may take minutes, during which this process may be killed.
   * @throws ControlError DEVICE_FAILED, only at the first failure
   */
  async run(giveUp: boolean): Promise<void> {
    const { device, front, backing } = this.#tracker;
    const status = await front.sync(backing.fd);
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
}
