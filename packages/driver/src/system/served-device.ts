import { closeSync, statSync } from "node:fs";
import {
  type DeviceParams,
  major,
  minor,
  openCharacterDevice,
  type UblkControl,
} from "@blksnap/ublk";

export interface ServeOptions {
  readonly params: DeviceParams;
  readonly queueDepth: number;
  readonly maxIoBytes: number;
  readonly features: number;
  /** Starts the queue on its reactor; ends when every tag is about to be fetched. */
  readonly startQueue: (charFd: number) => Promise<void>;
  /** Ends when the queue's last command came back. */
  readonly queueEnded: () => Promise<void>;
}

/** A ublk device whose queue lives on a reactor: /dev/ublkbN, from start() to stop(). */
export class ServedDevice {
  readonly id: number;
  /** `/dev/ublkbN` */
  readonly path: string;
  /** "major:minor" of the block device. */
  deviceNumber = "";
  readonly #control: UblkControl;
  readonly #charFd: number;
  readonly #queueEnded: () => Promise<void>;
  #queueStarted = false;

  private constructor(control: UblkControl, id: number, charFd: number, options: ServeOptions) {
    this.#control = control;
    this.id = id;
    this.path = `/dev/ublkb${id}`;
    this.#charFd = charFd;
    this.#queueEnded = options.queueEnded;
  }

  /** Makes the device and brings it to life; when it fails nothing is left behind. */
  static async start(control: UblkControl, options: ServeOptions): Promise<ServedDevice> {
    const info = await control.addDevice({
      id: -1,
      queues: 1,
      queueDepth: options.queueDepth,
      maxIoBytes: options.maxIoBytes,
      features: options.features,
      serverFlags: 0,
    });
    let device: ServedDevice | undefined;
    try {
      await control.setParams(info.id, options.params, info.maxIoBytes);
      const charFd = await openCharacterDevice(info.id);
      device = new ServedDevice(control, info.id, charFd, options);
      await options.startQueue(charFd);
      device.#queueStarted = true;
      await control.startDevice(info.id);
      const { rdev } = statSync(device.path);
      device.deviceNumber = `${major(rdev)}:${minor(rdev)}`;
      return device;
    } catch (error) {
      if (device) await device.stop();
      else await control.deleteDevice(info.id);
      throw error;
    }
  }

  /** Ends the device: whoever still has it open gets I/O errors, and frees its number on closing. */
  async stop(): Promise<void> {
    await this.#control.stopDevice(this.id);
    if (this.#queueStarted) await this.#queueEnded();
    closeSync(this.#charFd);
    await this.#control.deleteDevice(this.id);
  }
}
