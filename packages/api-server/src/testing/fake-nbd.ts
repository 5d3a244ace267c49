/** Stores TCP addresses, and listens at none. */
import {
  ControlError,
  type NbdControl,
  type NbdListener,
  type NbdListenerOpenRequest,
  type NbdListenerQuery,
  tcpAddressText,
} from "@blksnap/api";
import type { FakeDriver } from "./fake-driver.js";

export class FakeNbd implements NbdControl {
  readonly #driver: FakeDriver;

  constructor(driver: FakeDriver) {
    this.#driver = driver;
  }

  list(): readonly NbdListener[] {
    return this.#driver.nbdListeners;
  }

  async open(request: NbdListenerOpenRequest): Promise<NbdListener> {
    const { address, port, certificates, any_client = false, writable = false } = request;
    const tls = certificates !== undefined;
    if (tls === (request.insecure === true)) {
      throw new ControlError("NBD_NOT_SECURE", "no certificates were given");
    }
    const opened: NbdListener = {
      ...{ address, port, tls, writable },
      verifies_clients: tls && !any_client,
      ...{ configured: false, open: true, why: null, connections: 0, refused: 0 },
    };
    this.#driver.nbdListeners = [...this.#without(request), opened];
    return opened;
  }

  async close(query: NbdListenerQuery): Promise<NbdListener> {
    const name = tcpAddressText(query);
    const found = this.list().find((one) => tcpAddressText(one) === name);
    if (found === undefined) throw new ControlError("NBD_LISTENER_NOT_FOUND", `none at ${name}`);
    this.#driver.nbdListeners = this.#without(query);
    return found;
  }

  #without(query: NbdListenerQuery): NbdListener[] {
    const name = tcpAddressText(query);
    return this.list().filter((one) => tcpAddressText(one) !== name);
  }
}
