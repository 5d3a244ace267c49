/** The configuration in the life of a daemon: devices attached, what the next daemon continues with, status. */
import { resolve } from "node:path";
import type {
  AttachRequestOptions,
  AttachResponse,
  DriverControl,
  StatusResponse,
} from "@blksnap/api";
import type { Logger } from "pino";
import type { Values } from "../options.js";
import { overlay } from "../overlay.js";
import { ConfiguredDevices, devicesToAttach } from "./attach-configured.js";
import { isError, problemText } from "./config-problem.js";
import type { InForce } from "./in-force.js";
import { ServedFile, type WaitedFor } from "./served.js";

/** The part of the driver that is asked here. */
interface Attaches {
  attach(device: string, options: AttachRequestOptions): Promise<AttachResponse>;
  /** Whether no device can be attached now, and until one can. */
  readonly held: { readonly isHolding: boolean; readonly over: Promise<boolean> };
}

export class Configured {
  readonly #inForce: InForce;
  readonly #isStandby: boolean;
  readonly #logger: Logger;
  readonly #file: ServedFile;
  readonly #ended = new AbortController();
  #devices: ConfiguredDevices | undefined;
  #isKept = true;
  #isHandedOver = false;

  constructor(inForce: InForce, values: Values, logger: Logger) {
    this.#inForce = inForce;
    this.#isStandby = values.standby === true;
    this.#logger = logger;
    this.#file = ServedFile.of(values);
  }

  status(): StatusResponse["daemon"]["configuration"] {
    const { isEarlier, problems } = this.#inForce;
    return {
      mistakes: isEarlier ? problems.filter(isError).map(problemText) : [],
      missing: this.#devices?.missing ?? [],
    };
  }

  /** To be called when the daemon serves, and none before it does any more. Ends when all is settled. */
  async attachTo(driver: Attaches): Promise<void> {
    const { config } = this.#inForce;
    const wanted = devicesToAttach(config, this.#file.read(), this.#isStandby);
    this.#devices = new ConfiguredDevices(wanted, {
      // A node that is in use at the start may be mounted by what the front was meant for: that is told.
      attach: (device, options) => driver.attach(device, { ...options, kind: "front" }),
      logger: this.#logger,
      signal: this.#ended.signal,
      onSettled: () => this.#keep(),
      isHeld: () => driver.held.isHolding,
    });
    this.#keep();
    await this.#devices.attach();
    void this.#attachHeld(driver);
  }

  /** Nothing of the boot waits for these. */
  async #attachHeld(driver: Attaches): Promise<void> {
    // It may have ended while others were waited for.
    if (!(await driver.held.over)) return;
    await this.#devices?.attachHeld();
  }

  /** The driver, whose users let go of what is still to be attached, too, by a detach. */
  watching(driver: DriverControl): DriverControl {
    const detach: DriverControl["detach"] = async (device, options) => {
      const detaching = () => driver.detach(device, options);
      const devices = this.#devices;
      if (devices === undefined) return await detaching();
      const detached = await devices.letGo(device, detaching);
      if (detached !== undefined) return detached;
      const text = "a device of the configuration was to be attached, and is given up";
      this.#logger.info({ device }, text);
      return { device: resolve(device), front: "" };
    };
    return overlay(driver, { detach });
  }

  /** The daemon is about to end. @param isHandOver the next one is about to start, and continues */
  end(isHandOver: boolean): void {
    this.#ended.abort();
    this.#isKept = isHandOver;
    this.#isHandedOver = isHandOver;
    this.#keep();
  }

  /** Nothing is left that the next daemon would continue with. */
  forget(): void {
    this.#file.removeOf(process.pid);
  }

  /** The next daemon counts this one, unless it ends in order: no device has brought that about. */
  #waited(): WaitedFor[] | undefined {
    const uncounted = this.#isHandedOver ? 1 : 0;
    return this.#devices?.waited.map((one) => {
      return { ...one, earlierDaemons: one.earlierDaemons - uncounted };
    });
  }

  #keep(): void {
    const { config } = this.#inForce;
    const waited = this.#isKept ? this.#waited() : undefined;
    try {
      this.#file.write({ pid: process.pid, config, waited });
    } catch (error) {
      const text =
        "the next daemon will not know this configuration, nor which devices are waited for";
      this.#logger.warn({ err: error }, text);
    }
  }
}
