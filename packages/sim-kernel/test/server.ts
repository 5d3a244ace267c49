/** A program on the machine: serves a ublk device that passes all requests to a disk. */
import type { MessagePort } from "node:worker_threads";
import { reactorStarter, type SimDisk, type SimMachine } from "@blksnap/sim-kernel";
import {
  DeviceMark,
  type DeviceParams,
  FileTarget,
  openBackingFile,
  Queue,
  type QueueStart,
  RecoverableDevice,
  UblkControl,
} from "@blksnap/ublk";
import { Reactor } from "@blksnap/uring";

export const DISK_BYTES = 2 ** 20;
export const DEPTH = 8;
export const OWNER = 77;
export const MAX_IO_BYTES = 65_536;

/** One life of the program. */
export class Server {
  readonly errors: unknown[] = [];
  readonly machine: SimMachine;
  control!: UblkControl;
  device!: RecoverableDevice;
  #reactor!: Reactor;
  #wake: () => void = () => undefined;
  #stop: () => Promise<void> = async () => undefined;
  #onQueueEnd: () => void = () => undefined;
  readonly #queueEnd: Promise<void>;

  constructor(machine: SimMachine) {
    this.machine = machine;
    this.#queueEnd = new Promise((resolve) => {
      this.#onQueueEnd = resolve;
    });
  }

  async start(params?: Partial<DeviceParams>, zeroCopy = false): Promise<void> {
    await this.#begin();
    const backing = openBackingFile("/dev/sda");
    this.device = await RecoverableDevice.start(this.control, {
      ...this.#options((queue) => this.#serve(queue, backing.fd)),
      mark: DeviceMark.FRONT,
      owner: OWNER,
      params: { ...backing.params, ...params },
      queueDepth: DEPTH,
      maxIoBytes: MAX_IO_BYTES,
      zeroCopy,
      onNumber: () => undefined,
    });
  }

  async recover(id: number, patienceMs?: number): Promise<void> {
    await this.#begin();
    const backing = openBackingFile("/dev/sda");
    const options = {
      ...this.#options((queue) => this.#serve(queue, backing.fd)),
      mark: DeviceMark.FRONT,
      onBegun: () => undefined,
    };
    this.device = await RecoverableDevice.recover(this.control, id, OWNER, options, patienceMs);
  }

  async stop(): Promise<void> {
    await this.device.stop();
    await this.#stop();
    this.control.close();
  }

  async #begin(): Promise<void> {
    const start = reactorStarter(this.machine, ({ wakeFd, port }) => this.#react(wakeFd, port));
    const running = start(
      undefined,
      () => undefined,
      (error) => error && this.errors.push(error),
    );
    this.#wake = () => running.wake();
    this.#stop = () => running.stop("stop");
    this.control = await UblkControl.open();
  }

  #react(wakeFd: number, port: MessagePort): Reactor {
    const onError = (error: unknown): void => void this.errors.push(error);
    const onMessage = (): void => this.#reactor.stop();
    this.#reactor = new Reactor({ wakeFd, port, onMessage, onError });
    return this.#reactor;
  }

  #options(startQueue: (queue: QueueStart) => void) {
    return {
      startQueue: async (queue: QueueStart) => startQueue(queue),
      queueEnded: () => this.#queueEnd,
      doubtOf: () => undefined,
      onNumberTaken: () => undefined,
      onNumberFreed: () => undefined,
    };
  }

  #serve({ queueDepth: depth, ...start }: QueueStart, fd: number): void {
    const reactor = this.#reactor;
    const onError = (error: unknown): void => void this.errors.push(error);
    const onEnd = (): void => this.#onQueueEnd();
    const queue = new Queue({ reactor, ...start, queueId: 0, depth, onEnd, onError });
    queue.start(new FileTarget(reactor, queue, fd, true));
    this.#wake();
  }
}

export function addDisk(machine: SimMachine): SimDisk {
  return machine.addDisk("sda", { sizeBytes: DISK_BYTES });
}
