/** Fronts and images as block devices of the kernel. */
import { close, constants, open } from "node:fs";
import { promisify } from "node:util";
import { ControlError } from "@blksnap/api";
import { attribute, usersOf } from "@blksnap/linux-block";
import {
  DeviceMark,
  isOurs,
  ownDevices,
  RECOVERY_PATIENCE_MS,
  RecoverableDevice,
  type ServeOptions,
  type UblkControl,
  type UblkDeviceInfo,
  UblkState,
} from "@blksnap/ublk";
import { claimInHelper, fsyncInHelper } from "@blksnap/uring";
import type { Logger } from "pino";
import { links, makePartitions, udevMarks } from "../system/device-names.js";
import { CLAIM_TIMEOUT_MS } from "../time-limits.js";
import type {
  Frontend,
  Links,
  NewServed,
  ResumedServed,
  ServedDevice,
  Serving,
} from "./frontend.js";

const SECTOR_BYTES = 512;
const MARKS = { front: DeviceMark.FRONT, image: DeviceMark.IMAGE } as const;

export class UblkFrontend implements Frontend {
  readonly kind = "ublk";
  readonly links: Links = links;
  readonly #control: UblkControl;
  readonly #owner: number;
  readonly #logger: Logger;

  /** @param owner tag of the state directory that has the devices on record */
  constructor(control: UblkControl, owner: number, logger: Logger) {
    this.#control = control;
    this.#owner = owner;
    this.#logger = logger;
  }

  async start(served: NewServed): Promise<ServedDevice> {
    const { params, queueDepth, maxIoBytes, above, onNumber, role } = served;
    const { zeroCopy = false, zeroCopyIoBytes = maxIoBytes, hasPartitions } = served;
    const whenLive = (path: string): Promise<void> => makePartitions(path, this.#logger);
    const device = await RecoverableDevice.start(this.#control, {
      ...serveOptions(served),
      mark: MARKS[role],
      owner: this.#owner,
      params,
      queueDepth,
      maxIoBytes,
      zeroCopy,
      zeroCopyIoBytes,
      ...(typeof above === "number" ? { above } : {}),
      ...(hasPartitions ? { whenLive } : {}),
      onNumber: (id, hasZeroCopy) => onNumber({ id, hasZeroCopy }),
    });
    return new UblkServed(device, params.capacityBytes, this.#fixedWhy);
  }

  async resume(
    id: number | null,
    served: ResumedServed,
    patienceMs: number = RECOVERY_PATIENCE_MS,
  ): Promise<ServedDevice> {
    const { onBegun, role } = served;
    const options = { ...serveOptions(served), mark: MARKS[role], onBegun };
    const [control, owner] = [this.#control, this.#owner];
    const device = await RecoverableDevice.recover(control, id ?? -1, owner, options, patienceMs);
    const capacityBytes = capacityOf(device.path) ?? served.params.capacityBytes;
    return new UblkServed(device, capacityBytes, this.#fixedWhy);
  }

  get #fixedWhy(): string | undefined {
    if (this.#control.canUpdateSize) return undefined;
    return "this kernel cannot resize ublk devices; Linux 6.16 or later can";
  }

  async leftImage(id: number | null): Promise<UblkDeviceInfo | undefined> {
    const info = await this.#control.deviceInfo(id ?? -1);
    if (info === undefined || !isOurs(info, this.#owner)) return undefined;
    const isUsable = info.serverFlags === DeviceMark.IMAGE && info.state !== UblkState.DEAD;
    return isUsable ? info : undefined;
  }

  async isFrontGone(id: number | null): Promise<boolean> {
    const info = await this.#control.deviceInfo(id ?? -1);
    // Another device may have the number by now.
    const isFront = info?.serverFlags === DeviceMark.FRONT && info.serverFlagsHigh === this.#owner;
    if (isFront && info.state !== UblkState.DEAD) return false;
    if (isFront) await this.#control.deleteDevice(info.id);
    return true;
  }

  async otherFronts(known: ReadonlySet<number>): Promise<number[]> {
    const devices = await ownDevices(this.#control, this.#owner);
    return devices.filter((one) => hasUsers(one) && !known.has(one.id)).map(({ id }) => id);
  }

  async removeImage(id: number): Promise<void> {
    try {
      const info = await this.#control.deviceInfo(id);
      if (info === undefined || !isOurs(info, this.#owner)) return;
      if (info.serverFlags === DeviceMark.IMAGE) await this.#control.deleteDevice(id);
    } catch (error) {
      this.#logger.warn({ device: this.nameOf(id), err: error }, "device is not removed");
    }
  }

  /**
   * Removes devices that never lived or have ended, and images: without their snapshot they are worth nothing, and
   * their readers would wait without end.
   */
  async removeOrphans(known: ReadonlySet<number>): Promise<void> {
    for (const info of await ownDevices(this.#control, this.#owner)) {
      const { id, state } = info;
      if (known.has(id) || state === UblkState.LIVE) continue;
      const device = this.nameOf(id);
      if (hasUsers(info)) {
        const text = `the front ${device} has no usable record: its users wait`;
        this.#logger.error({ device }, text);
        continue;
      }
      if (state !== UblkState.DEAD)
        this.#logger.error({ device }, "image without a snapshot removed");
      await this.#control.deleteDevice(id).catch((error) => {
        this.#logger.warn({ device, err: error }, "device is not removed");
      });
    }
  }

  nameOf(id: number | null): string {
    return `/dev/ublkb${id}`;
  }

  async inUse(devices: readonly ServedDevice[]): Promise<Map<ServedDevice, readonly string[]>> {
    const users = usersOf(
      devices.map(({ path }) => path),
      { exceptPid: process.pid },
    );
    const inUse = new Map<ServedDevice, readonly string[]>();
    for (const one of devices) {
      const of = users.get(one.path) ?? [];
      // Mounted or opened exclusively, even if this process cannot see by what.
      const isUsed = of.length > 0 || (await claimInHelper(one.path, CLAIM_TIMEOUT_MS)) < 0;
      if (isUsed) inUse.set(one, of);
    }
    return inUse;
  }

  makePartitions({ path }: ServedDevice): Promise<void> {
    return makePartitions(path, this.#logger);
  }
}

/** True for a front that has not ended: its users wait while nothing serves it. */
function hasUsers({ serverFlags, state }: UblkDeviceInfo): boolean {
  return serverFlags === DeviceMark.FRONT && state !== UblkState.DEAD;
}

/** The kernel's: an earlier daemon may have been about to change it. Undefined if it is not reported. */
function capacityOf(path: string): number | undefined {
  const sectors = attribute(`/sys/class/block/${path.slice("/dev/".length)}`, "size");
  return sectors === null ? undefined : Number(sectors) * SECTOR_BYTES;
}

function serveOptions({
  startQueue,
  queueEnded,
  doubtOf,
  isHidden,
  original,
}: Serving): ServeOptions {
  const kind = isHidden ? "images" : "fronts";
  return {
    startQueue,
    queueEnded,
    doubtOf,
    onNumberTaken: (id) => udevMarks.add(kind, `ublkb${id}`, original),
    onNumberFreed: (id) => udevMarks.remove(`ublkb${id}`),
  };
}

class UblkServed implements ServedDevice {
  readonly exported = undefined;
  /** Claiming the device keeps others away, so there is no such state. */
  readonly isHeld = false;
  readonly fixedWhy: string | undefined;
  capacityBytes: number;
  readonly #device: RecoverableDevice;

  constructor(device: RecoverableDevice, capacityBytes: number, fixedWhy: string | undefined) {
    this.#device = device;
    this.capacityBytes = capacityBytes;
    this.fixedWhy = fixedWhy;
  }

  async grow(capacityBytes: number): Promise<void> {
    await this.#device.grow(capacityBytes);
    this.capacityBytes = capacityBytes;
  }

  get id(): number {
    return this.#device.id;
  }

  get path(): string {
    return this.#device.path;
  }

  get deviceNumber(): string {
    return this.#device.deviceNumber;
  }

  get hasZeroCopy(): boolean {
    return this.#device.hasZeroCopy;
  }

  get isLive(): boolean {
    return this.#device.isLive;
  }

  stop(): Promise<void> {
    return this.#device.stop();
  }

  noteEnd(forgetNumber: () => void): boolean {
    return this.#device.noteEnd(forgetNumber);
  }

  release(): void {
    this.#device.release();
  }

  /** Opens it exclusively, so that nothing can mount it while it is removed. */
  async hold(): Promise<() => Promise<void>> {
    const { path } = this;
    let held: number;
    try {
      held = await promisify(open)(path, constants.O_RDWR | constants.O_EXCL, 0);
    } catch (error) {
      throw new ControlError("FRONT_IN_USE", `the front ${path} is in use`, { cause: error });
    }
    // Not on this thread: writes to the front may wait for slots that this thread grants.
    return () => promisify(close)(held).catch(() => undefined);
  }

  sync(): Promise<number> {
    return fsyncInHelper(this.path);
  }
}
