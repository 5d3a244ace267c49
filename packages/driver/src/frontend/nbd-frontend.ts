/**
 * Fronts and images as exports over NBD. Only their records survive the process: clients of a dead daemon connect to
 * the next one, which creates the exports again under the same names.
 */
import { fsync } from "node:fs";
import { promisify } from "node:util";
import { ControlError } from "@blksnap/api";
import { NBD_IO_BYTES_MAX } from "@blksnap/data-plane";
import { EACCES, EIO, ENOENT, EPERM } from "@blksnap/errors";
import type { DeviceParams } from "@blksnap/ublk";
import { fsyncInHelper } from "@blksnap/uring";
import type {
  Frontend,
  Links,
  NewServed,
  ResumedServed,
  Served,
  ServedDevice,
  Serving,
} from "./frontend.js";

type UriOf = (exportName: string) => string | null;

/** Exports have no devices to name. */
const NO_LINKS: Links = {
  add: () => undefined,
  remove: () => undefined,
  has: () => false,
};

export class NbdFrontend implements Frontend {
  readonly kind = "nbd";
  readonly links: Links = NO_LINKS;
  readonly #uriOf: UriOf;

  /** @param uriOf address of an export; null while no server listens */
  constructor(uriOf: UriOf) {
    this.#uriOf = uriOf;
  }

  async start(served: NewServed): Promise<ServedDevice> {
    served.onNumber({ id: null, hasZeroCopy: false });
    return this.#serve(served);
  }

  async resume(_: number | null, served: ResumedServed): Promise<ServedDevice> {
    served.onBegun();
    return this.#serve(served);
  }

  async #serve(served: Served): Promise<ServedDevice> {
    const { queueDepth, params, startQueue } = served;
    const maxIoBytes = Math.min(served.maxIoBytes, NBD_IO_BYTES_MAX);
    try {
      await startQueue({ exported: params, queueDepth, maxIoBytes });
    } catch (error) {
      // The reactor may serve it all the same, and then needs its descriptors until the queue has ended.
      if (served.doubtOf(error) === "served") await served.queueEnded();
      throw error;
    }
    return new NbdServed(served, params, this.#uriOf);
  }

  async leftImage(): Promise<undefined> {
    return undefined;
  }

  /** Its clients may return as long as it is on record. */
  async isFrontGone(): Promise<boolean> {
    return false;
  }

  async otherFronts(): Promise<number[]> {
    return [];
  }

  async removeImage(): Promise<void> {}

  async removeOrphans(): Promise<void> {}

  nameOf(): string {
    return "(an NBD export)";
  }

  async inUse(devices: readonly ServedDevice[]): Promise<Map<ServedDevice, readonly string[]>> {
    const inUse = new Map<ServedDevice, readonly string[]>();
    for (const device of devices) {
      const count = device instanceof NbdServed ? await device.connections() : 0;
      if (count > 0) inUse.set(device, [clients(count)]);
    }
    return inUse;
  }

  async makePartitions(): Promise<void> {}
}

function clients(count: number): string {
  return count === 1 ? "1 NBD connection" : `${count} NBD connections`;
}

/** Results of opening a file again that is write-only, or that /proc does not show. */
const NOT_OPENED: readonly number[] = [-EACCES, -EPERM, -ENOENT];

async function fsyncHere(fd: number): Promise<number> {
  try {
    await promisify(fsync)(fd);
    return 0;
  } catch (error) {
    return (error as NodeJS.ErrnoException).errno ?? -EIO;
  }
}

class NbdServed implements ServedDevice {
  readonly id = null;
  readonly deviceNumber = "";
  readonly isLive = true;
  readonly hasZeroCopy = false;
  readonly fixedWhy = "NBD clients keep the size that the export had when they connected";
  readonly exported: DeviceParams;
  isHeld = false;
  readonly #serving: Serving;
  readonly #uriOf: UriOf;

  constructor(serving: Serving, params: DeviceParams, uriOf: UriOf) {
    this.#serving = serving;
    this.exported = params;
    this.#uriOf = uriOf;
  }

  get path(): string {
    const { exportName } = this.#serving;
    return this.#uriOf(exportName) ?? exportName;
  }

  get capacityBytes(): number {
    return this.exported.capacityBytes;
  }

  async grow(): Promise<void> {
    throw new Error(this.fixedWhy);
  }

  connections(): Promise<number> {
    return this.#serving.connections();
  }

  async stop(): Promise<void> {
    this.isHeld = true;
    await this.#serving.queueEnded();
  }

  /** Only its own daemon can end it. */
  noteEnd(): boolean {
    return false;
  }

  release(): void {}

  async hold(): Promise<() => Promise<void>> {
    this.isHeld = true;
    const release = async (): Promise<void> => {
      this.isHeld = false;
    };
    let count: number;
    try {
      // Connections passed on before are included: the reactor handles requests in order.
      count = await this.connections();
    } catch (error) {
      await release();
      throw error;
    }
    if (count === 0) return release;
    await release();
    throw new ControlError("FRONT_IN_USE", `the front ${this.path} is in use: ${clients(count)}`, {
      hint: "Disconnect its clients first",
    });
  }

  /** Writes that its clients have not flushed are in the page cache of the original. */
  async sync(originalFd: number): Promise<number> {
    // In a helper: an original that does not answer must not keep a thread of this process.
    const path = `/proc/${process.pid}/fd/${originalFd}`;
    const status = await fsyncInHelper(path).catch(() => -EACCES);
    return NOT_OPENED.includes(status) ? fsyncHere(originalFd) : status;
  }
}
