import { closeSync, existsSync, openSync } from "node:fs";
import { MappedMemory, PromiseRing, prepareCommand, SetupFlag } from "@blksnap/uring";
import { ControlCommand, QUEUE_DEPTH_MAX, UblkFeature } from "./abi.js";
import { UblkError } from "./errors.js";
import {
  ANY_DEVICE_ID,
  DEV_INFO_BYTES,
  type DeviceParams,
  decodeDeviceInfo,
  encodeDeviceInfo,
  encodeParams,
  type NewDevice,
  type UblkDeviceInfo,
} from "./layout.js";

const CONTROL_PATH = "/dev/ublk-control";
const NO_QUEUE = 0xffff;
const ENODEV = 19;
const EPERM = 1;
const EACCES = 13;
const EOPNOTSUPP = 95;

/** Default bound of every control command. */
const COMMAND_TIMEOUT_MS = 30_000;

interface Command {
  readonly op: number;
  readonly name: string;
  readonly deviceId: number;
  /** Bytes sent, and overwritten with the answer. */
  readonly buffer?: Uint8Array;
  readonly data?: number;
  readonly timeoutMs?: number;
}

/**
 * The control plane of ublk, for the main thread. Commands run one at a time, since kernels were
 * seen to lose concurrent ones, and each has a time limit: a command that the kernel never answers
 * (known on some 6.17 and 6.18 releases) becomes an error instead of a hang.
 */
export class UblkControl {
  readonly #fd: number;
  readonly #ring: PromiseRing;
  /** UblkFeature bits that the running kernel knows. */
  readonly features: number;
  #last: Promise<unknown> = Promise.resolve();

  private constructor(fd: number, ring: PromiseRing, features: number) {
    this.#fd = fd;
    this.#ring = ring;
    this.features = features;
  }

  /**
   * @throws UblkError UBLK_MISSING (no module), UBLK_NOT_PERMITTED (not root), KERNEL_TOO_OLD
   * (before Linux 6.5)
   */
  static async open(): Promise<UblkControl> {
    const fd = openControl();
    const ring = new PromiseRing(32, SetupFlag.SQE128);
    try {
      const probe = new UblkControl(fd, ring, 0);
      const bytes = new Uint8Array(8);
      const command = { op: ControlCommand.GET_FEATURES, name: "GET_FEATURES", deviceId: 0 };
      const status = await probe.#command({ ...command, buffer: bytes });
      if (status === -EPERM || status === -EACCES) {
        throw new UblkError("UBLK_NOT_PERMITTED", "ublk needs CAP_SYS_ADMIN; run as root", -status);
      }
      if (status < 0) {
        throw new UblkError(
          "KERNEL_TOO_OLD",
          "the kernel's ublk driver is too old: Linux 6.5 or later is needed",
          -status,
        );
      }
      return new UblkControl(fd, ring, new DataView(bytes.buffer).getUint32(0, true));
    } catch (error) {
      ring.close();
      closeSync(fd);
      throw error;
    }
  }

  close(): void {
    this.#ring.close();
    closeSync(this.#fd);
  }

  /**
   * ADD_DEV: makes /dev/ublkcN. `id` -1 takes any free number.
   * @throws UblkError CONTROL_FAILED: EEXIST (number taken), EACCES (over ublks_max), EINVAL
   */
  async addDevice(device: NewDevice): Promise<UblkDeviceInfo> {
    if (device.queueDepth < 1 || device.queueDepth > QUEUE_DEPTH_MAX) {
      throw new UblkError("CONTROL_FAILED", `queue depth ${device.queueDepth}: 1 to 4096`);
    }
    const id = device.id < 0 ? ANY_DEVICE_ID : device.id;
    const buffer = encodeDeviceInfo({ ...device, id });
    await this.#run({ op: ControlCommand.ADD_DEV, name: "ADD_DEV", deviceId: id, buffer });
    return decodeDeviceInfo(buffer);
  }

  /** GET_DEV_INFO; undefined where no device has that number. */
  async deviceInfo(deviceId: number): Promise<UblkDeviceInfo | undefined> {
    const buffer = new Uint8Array(DEV_INFO_BYTES);
    const command = { op: ControlCommand.GET_DEV_INFO, name: "GET_DEV_INFO", deviceId, buffer };
    const status = await this.#command(command);
    if (status === -ENODEV) return undefined;
    this.#check(status, command);
    return decodeDeviceInfo(buffer);
  }

  /** SET_PARAMS: only between ADD_DEV and START_DEV. */
  async setParams(deviceId: number, params: DeviceParams, maxIoBytes: number): Promise<void> {
    const buffer = encodeParams(params, maxIoBytes);
    await this.#run({ op: ControlCommand.SET_PARAMS, name: "SET_PARAMS", deviceId, buffer });
  }

  /** START_DEV: ends when every tag was fetched and the block device exists. */
  async startDevice(deviceId: number): Promise<void> {
    const data = process.pid;
    await this.#run({ op: ControlCommand.START_DEV, name: "START_DEV", deviceId, data });
  }

  /** STOP_DEV: the block device goes away; the server must go on serving until this ends. */
  async stopDevice(deviceId: number, timeoutMs: number = COMMAND_TIMEOUT_MS): Promise<void> {
    await this.#run({ op: ControlCommand.STOP_DEV, name: "STOP_DEV", deviceId, timeoutMs });
  }

  /**
   * Deletes a stopped device without waiting for those that still have its block device open: it is
   * gone as soon as they close it.
   */
  async deleteDevice(deviceId: number): Promise<void> {
    const command = { op: ControlCommand.DEL_DEV_ASYNC, name: "DEL_DEV_ASYNC", deviceId };
    const status = await this.#command(command);
    if (status !== -EOPNOTSUPP) return this.#check(status, command);
    await this.#run({ op: ControlCommand.DEL_DEV, name: "DEL_DEV", deviceId });
  }

  /** START_USER_RECOVERY: EBUSY until the old server's last reference to /dev/ublkcN is gone. */
  async startRecovery(deviceId: number): Promise<void> {
    const op = ControlCommand.START_USER_RECOVERY;
    await this.#run({ op, name: "START_USER_RECOVERY", deviceId });
  }

  /** END_USER_RECOVERY: ends when every tag was fetched again; the device is then live. */
  async endRecovery(deviceId: number): Promise<void> {
    const op = ControlCommand.END_USER_RECOVERY;
    await this.#run({ op, name: "END_USER_RECOVERY", deviceId, data: process.pid });
  }

  async #run(command: Command): Promise<void> {
    this.#check(await this.#command(command), command);
  }

  #check(status: number, command: Command): void {
    if (status >= 0) return;
    const device = command.deviceId === ANY_DEVICE_ID ? "a new device" : `ublk${command.deviceId}`;
    throw new UblkError("CONTROL_FAILED", `${command.name} failed for ${device}`, -status);
  }

  #command(command: Command): Promise<number> {
    const turn = this.#last.then(() => this.#submit(command));
    this.#last = turn.catch(() => undefined);
    return turn;
  }

  async #submit(command: Command): Promise<number> {
    const memory = command.buffer && MappedMemory.anonymous(command.buffer.byteLength);
    if (memory && command.buffer) new Uint8Array(memory.buffer).set(command.buffer);
    // The memory belongs to the kernel until the command ends, even when nobody waits any more.
    const answer = this.#ring
      .submit((ring, low, high) => {
        const cmd = prepareCommand(ring, this.#fd, command.op | 0, low, high, 0);
        const words = ring.sqes32;
        words[cmd] = command.deviceId | 0;
        words[cmd + 1] = NO_QUEUE | ((command.buffer?.byteLength ?? 0) << 16);
        words[cmd + 2] = (memory?.address ?? 0) | 0;
        words[cmd + 3] = ((memory?.address ?? 0) / 2 ** 32) | 0;
        words[cmd + 4] = command.data ?? 0;
      }, memory)
      .then((status) => {
        if (memory && command.buffer) {
          command.buffer.set(new Uint8Array(memory.buffer, 0, command.buffer.byteLength));
          memory.unmap();
        }
        return status;
      });
    return bounded(answer, command);
  }
}

function bounded(answer: Promise<number>, command: Command): Promise<number> {
  const timeoutMs = command.timeoutMs ?? COMMAND_TIMEOUT_MS;
  let timer: NodeJS.Timeout | undefined;
  const timeout = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      const what = `the kernel did not answer ${command.name} in ${timeoutMs} ms`;
      reject(new UblkError("CONTROL_TIMEOUT", `${what} (device ${command.deviceId})`, 110));
    }, timeoutMs);
  });
  return Promise.race([answer, timeout]).finally(() => clearTimeout(timer));
}

function openControl(): number {
  try {
    return openSync(CONTROL_PATH, "r+");
  } catch (error) {
    const { code, errno } = error as NodeJS.ErrnoException;
    if (code === "EACCES" || code === "EPERM") {
      throw new UblkError("UBLK_NOT_PERMITTED", `cannot open ${CONTROL_PATH}; run as root`, errno);
    }
    throw new UblkError(
      "UBLK_MISSING",
      `${CONTROL_PATH} is not there: the kernel module ublk_drv is not loaded. ` +
        "Load it with: modprobe ublk_drv (Linux 6.5 or later, CONFIG_BLK_DEV_UBLK)",
      errno,
      error,
    );
  }
}

/** Opens /dev/ublkcN for this process; all its queues share the descriptor. */
export async function openCharacterDevice(deviceId: number): Promise<number> {
  const path = `/dev/ublkc${deviceId}`;
  // devtmpfs makes the node before ADD_DEV ends; with udev its owner may still be changing.
  for (let attempt = 0; attempt < 100 && !existsSync(path); attempt++) {
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  try {
    return openSync(path, "r+");
  } catch (error) {
    const { errno } = error as NodeJS.ErrnoException;
    throw new UblkError("DEVICE_NODE_MISSING", `cannot open ${path}`, errno, error);
  }
}

/** Names of the set bits, as the kernel calls them. */
export function featureNames(features: number): string[] {
  return Object.entries(UblkFeature)
    .filter(([, bit]) => (features & bit) !== 0)
    .map(([name]) => name);
}
