import { closeSync } from "node:fs";
import { ENODEV } from "@blksnap/errors";
import { bounded, ReactorThread } from "@blksnap/uring";
import { UblkFeature } from "./abi.js";
import { openCharacterDevice, UblkControl } from "./control.js";
import { UblkError } from "./errors.js";
import { checkParams, type DeviceParams, type UblkDeviceInfo } from "./layout.js";
import { addPartitions } from "./partitions.js";
import type { TargetModule, TargetSpec } from "./target.js";
import type { DeviceWorkerMessage, DeviceWorkerOptions } from "./worker.js";
import { isZeroCopied, MAX_IO_BYTES, ZERO_COPY_IO_BYTES, zeroCopyFeatures } from "./zero-copy.js";

/** Time limit for a stopped device's commands to return from the kernel. */
const QUEUE_END_TIMEOUT_MS = 10_000;

export interface UblkDeviceOptions {
  readonly target: TargetSpec;
  /** Number N of /dev/ublkbN; default: any free one. */
  readonly id?: number;
  /** Requests in flight, 1 to 4096; default 128. */
  readonly queueDepth?: number;
  /** Largest read or write; a multiple of 4096, at most 32 MiB; default 1 MiB with zero copy, else 512 KiB. */
  readonly maxIoBytes?: number;
  /** Whether to pass pages of requests on if the kernel and the target can; default false. */
  readonly zeroCopy?: boolean;
  /** Called with defects in the target, with the end of a failed reactor, and if partitions cannot be created. */
  readonly onError?: (error: Error) => void;
}

/**
 * A block device that this process serves: `/dev/ublkbN` exists from start() to stop(). It has one queue with its own
 * thread.
 */
export class UblkDevice {
  readonly id: number;
  /** `/dev/ublkbN` */
  readonly path: string;
  readonly params: DeviceParams;
  /**
   * Resolves when the device serves no more: after stop(), if another program stopped or deleted it, or if its
   * reactor failed. In the last two cases call stop() as well.
   */
  readonly ended: Promise<void>;
  readonly #control: UblkControl;
  readonly #onError: (error: Error) => void;
  #charFd = -1;
  #thread: ReactorThread | undefined;
  #failure: Error | undefined;
  #resolveEnded: () => void = () => undefined;
  #stopping: Promise<void> | undefined;

  private constructor(
    control: UblkControl,
    id: number,
    params: DeviceParams,
    onError: (error: Error) => void,
  ) {
    this.#control = control;
    this.id = id;
    this.path = `/dev/ublkb${id}`;
    this.params = params;
    this.#onError = onError;
    this.ended = new Promise((resolve) => {
      this.#resolveEnded = resolve;
    });
  }

  /**
   * Creates the device and starts serving it. If it fails, nothing is left behind.
   * @throws UblkError; those of the target's module
   */
  static async start(options: UblkDeviceOptions): Promise<UblkDevice> {
    const { target } = (await import(options.target.module.href)) as { target: TargetModule };
    const params = target.describe(options.target.options);
    checkParams(params);
    const onError = options.onError ?? (() => undefined);
    const control = await UblkControl.open();
    const wantsZeroCopy = options.zeroCopy === true && target.isPassThrough === true;
    let device: UblkDevice | undefined;
    try {
      const passed = zeroCopyFeatures(wantsZeroCopy, control, params);
      const info = await control.addDevice({
        id: options.id ?? -1,
        queues: 1,
        queueDepth: options.queueDepth ?? 128,
        maxIoBytes: options.maxIoBytes ?? (passed === 0 ? MAX_IO_BYTES : ZERO_COPY_IO_BYTES),
        features: passed | (control.features & UblkFeature.NO_AUTO_PART_SCAN),
        serverFlags: 0,
        serverFlagsHigh: 0,
      });
      device = new UblkDevice(control, info.id, params, onError);
      await device.#begin(options.target, info);
      return device;
    } catch (error) {
      // The caller needs the first error.
      await device?.stop().catch(onError);
      control.close();
      throw error;
    }
  }

  /**
   * Ends the device. Programs that still have it open get I/O errors from now on. A second call returns the same
   * promise, or retries after a failure.
   * @throws UblkError CONTROL_TIMEOUT, QUEUE_FAILED if the target never completes a request
   */
  stop(): Promise<void> {
    this.#stopping ??= this.#end().catch((error: unknown) => {
      this.#stopping = undefined;
      throw error;
    });
    return this.#stopping;
  }

  async #begin(target: TargetSpec, info: UblkDeviceInfo): Promise<void> {
    await this.#control.setParams(this.id, this.params, info.maxIoBytes, isZeroCopied(info));
    this.#charFd = await openCharacterDevice(this.id);
    await this.#serve(target, info);
    // START_DEV waits for every tag to be fetched, and would wait forever for a dead server.
    const giveUp = new AbortController();
    const died = this.ended.then(() => giveUp.abort());
    try {
      await Promise.race([this.#control.startDevice(this.id, giveUp.signal), died]);
    } catch (error) {
      throw this.#failure ?? error;
    }
    if (giveUp.signal.aborted) {
      throw this.#failure ?? new UblkError("QUEUE_FAILED", `${this.path} ended while it started`);
    }
    // The device works without them.
    await addPartitions(this.path).catch(this.#onError);
  }

  async #end(): Promise<void> {
    // STOP_DEV also returns the commands of a device that never became live.
    await unlessGone(this.#control.stopDevice(this.id));
    if (this.#thread) {
      const what = `${this.path} stopped, but a request was never answered`;
      const timedOut = (): Error => new UblkError("QUEUE_FAILED", what);
      await bounded(this.ended, QUEUE_END_TIMEOUT_MS, timedOut);
      await this.#thread.stop({ type: "stop" });
      this.#thread = undefined;
    }
    this.#resolveEnded();
    this.#closeCharacterDevice();
    await unlessGone(this.#control.deleteDevice(this.id));
    this.#control.close();
  }

  #closeCharacterDevice(): void {
    if (this.#charFd >= 0) closeSync(this.#charFd);
    this.#charFd = -1;
  }

  #serve(target: TargetSpec, info: UblkDeviceInfo): Promise<void> {
    const workerOptions: DeviceWorkerOptions = {
      charFd: this.#charFd,
      queueDepth: info.queueDepth,
      maxIoBytes: info.maxIoBytes,
      zeroCopy: isZeroCopied(info),
      target: { module: target.module.href, options: target.options },
    };
    return new Promise((resolve, reject) => {
      const onMessage = (message: unknown): void => {
        const said = message as DeviceWorkerMessage;
        if (said.type === "serving") resolve();
        else if (said.type === "ended") this.#resolveEnded();
        else this.#onError(new Error(said.message));
      };
      const onExit = (error: Error | undefined): void => {
        if (error) {
          const what = `${this.path}: ${error.message}`;
          this.#failure = new UblkError("QUEUE_FAILED", what, 0, error);
          reject(this.#failure);
          // A writer that waits for the dead thread gets an error as soon as nothing has this open:
          // from Linux 6.15 on that is when the kernel looks for requests that a server had.
          this.#closeCharacterDevice();
          this.#onError(this.#failure);
        }
        this.#resolveEnded();
      };
      const module = new URL("./worker.js", import.meta.url);
      this.#thread = new ReactorThread(module, workerOptions, onMessage, onExit);
    });
  }
}

/** Another program may have deleted the device meanwhile. */
async function unlessGone(command: Promise<void>): Promise<void> {
  try {
    await command;
  } catch (error) {
    if (!(error instanceof UblkError && error.errno === ENODEV)) throw error;
  }
}
