import { closeSync } from "node:fs";
import { ReactorThread } from "@blksnap/uring";
import { UblkControl, openCharacterDevice } from "./control.js";
import { UblkError } from "./errors.js";
import type { DeviceParams } from "./layout.js";
import type { TargetModule, TargetSpec } from "./target.js";
import type { DeviceWorkerMessage, DeviceWorkerOptions } from "./worker.js";

export interface UblkDeviceOptions {
  readonly target: TargetSpec;
  /** Number N of /dev/ublkbN; default: any free one. */
  readonly id?: number;
  /** Requests in flight, 1 to 4096; default 128. */
  readonly queueDepth?: number;
  /** Largest read or write; a multiple of 4096, at most 32 MiB; default 512 KiB. */
  readonly maxIoBytes?: number;
  /** Told of defects in the target and of a reactor that ended by itself. */
  readonly onError?: (error: Error) => void;
}

/**
 * A block device that this process serves: `/dev/ublkbN` exists from start() to stop(). One queue,
 * served by a thread of its own.
 */
export class UblkDevice {
  readonly id: number;
  /** `/dev/ublkbN` */
  readonly path: string;
  readonly params: DeviceParams;
  readonly #control: UblkControl;
  readonly #charFd: number;
  #thread: ReactorThread | undefined;
  #resolveEnded: () => void = () => undefined;
  readonly #ended: Promise<void>;

  private constructor(control: UblkControl, id: number, params: DeviceParams, charFd: number) {
    this.#control = control;
    this.id = id;
    this.path = `/dev/ublkb${id}`;
    this.params = params;
    this.#charFd = charFd;
    this.#ended = new Promise((resolve) => {
      this.#resolveEnded = resolve;
    });
  }

  /**
   * Makes the device and starts serving it. Nothing is left behind when it fails.
   * @throws UblkError; those of the target's module
   */
  static async start(options: UblkDeviceOptions): Promise<UblkDevice> {
    const { target } = (await import(options.target.module.href)) as { target: TargetModule };
    const params = target.describe(options.target.options);
    const control = await UblkControl.open();
    try {
      const info = await control.addDevice({
        id: options.id ?? -1,
        queues: 1,
        queueDepth: options.queueDepth ?? 128,
        maxIoBytes: options.maxIoBytes ?? 512 * 1024,
        features: 0,
        serverFlags: 0,
      });
      let device: UblkDevice | undefined;
      try {
        await control.setParams(info.id, params, info.maxIoBytes);
        const charFd = await openCharacterDevice(info.id);
        device = new UblkDevice(control, info.id, params, charFd);
        await device.#serve(options, info.queueDepth, info.maxIoBytes);
        await control.startDevice(info.id);
        return device;
      } catch (error) {
        if (device) await device.#stopServing();
        await control.deleteDevice(info.id);
        throw error;
      }
    } catch (error) {
      control.close();
      throw error;
    }
  }

  /** Ends the device. Those that still have it open get I/O errors from now on. */
  async stop(): Promise<void> {
    await this.#stopServing();
    await this.#control.deleteDevice(this.id);
    this.#control.close();
  }

  async #stopServing(): Promise<void> {
    // STOP_DEV also sends back the commands of a device that never came to life.
    await this.#control.stopDevice(this.id);
    if (this.#thread) {
      await this.#ended;
      await this.#thread.stop({ type: "stop" });
    }
    closeSync(this.#charFd);
  }

  #serve(options: UblkDeviceOptions, queueDepth: number, maxIoBytes: number): Promise<void> {
    const workerOptions: DeviceWorkerOptions = {
      charFd: this.#charFd,
      queueDepth,
      maxIoBytes,
      target: { module: options.target.module.href, options: options.target.options },
    };
    return new Promise((resolve, reject) => {
      const onMessage = (message: unknown): void => {
        const { type } = message as DeviceWorkerMessage;
        if (type === "serving") resolve();
        else if (type === "ended") this.#resolveEnded();
        else options.onError?.(new Error((message as { message: string }).message));
      };
      const onExit = (error: Error | undefined): void => {
        this.#resolveEnded();
        if (!error) return;
        const failure = new UblkError("QUEUE_FAILED", `${this.path}: ${error.message}`, 0, error);
        reject(failure);
        options.onError?.(failure);
      };
      const module = new URL("./worker.js", import.meta.url);
      this.#thread = new ReactorThread(module, workerOptions, onMessage, onExit);
    });
  }
}
