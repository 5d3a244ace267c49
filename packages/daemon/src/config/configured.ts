/** The configuration during a daemon's life: attaching devices, what the next daemon continues with, status. */
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

/** The used part of the driver. */
interface Attaches {
  attach(device: string, options: AttachRequestOptions): Promise<AttachResponse>;
  /** Whether no device can be attached now, and when that ends. */
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

  /** Call it when the daemon serves and no predecessor does. Resolves when every device is settled. */
  async attachTo(driver: Attaches): Promise<void> {
    const { config } = this.#inForce;
    const wanted = devicesToAttach(config, this.#file.read(), this.#isStandby);
    this.#devices = new ConfiguredDevices(wanted, {
      // A node that is in use at the start may be mounted without its front: report that.
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

  /** No boot waits for these. */
  async #attachHeld(driver: Attaches): Promise<void> {
    // The daemon may have ended while it waited for others.
    if (!(await driver.held.over)) return;
    await this.#devices?.attachHeld();
  }

  /** The driver, with a detach that also gives up a pending attach. */
  watching(driver: DriverControl): DriverControl {
    const detach: DriverControl["detach"] = async (device, options) => {
      const detaching = () => driver.detach(device, options);
      const devices = this.#devices;
      if (devices === undefined) return await detaching();
      const detached = await devices.detach(device, detaching);
      if (detached !== undefined) return detached;
      const text = "a configured device is given up";
      this.#logger.info({ device }, text);
      return { device: resolve(device), front: "" };
    };
    return overlay(driver, { detach });
  }

  /** The daemon is about to end. @param isHandOver a successor starts now, and continues */
  end(isHandOver: boolean): void {
    this.#ended.abort();
    this.#isKept = isHandOver;
    this.#isHandedOver = isHandOver;
    this.#keep();
  }

  /** Leaves nothing for the next daemon to continue with. */
  forget(): void {
    this.#file.removeOf(process.pid);
  }

  /** The next daemon counts this one as having died over its devices, unless it ends in order. */
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
