import { closeSync, existsSync, openSync, readdirSync } from "node:fs";
import { EACCES, EINVAL, ENODEV, EOPNOTSUPP, EPERM, ETIMEDOUT } from "@blksnap/errors";
import {
  bounded,
  commandInHelper,
  high32,
  low32,
  MappedMemory,
  PromiseRing,
  prepareCommand,
  type Ring,
  Serial,
  SetupFlag,
} from "@blksnap/uring";
import { ControlCommand, UblkFeature, UblkState } from "./abi.js";
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
const CLASS_PATH = "/sys/class/ublk-char";
const NO_QUEUE = 0xffff;
const SECTOR_BYTES = 512;
/** 32-bit words of a control command, `struct ublksrv_ctrl_cmd`. */
const CONTROL_COMMAND_WORDS = 8;
/** Drivers' result for a command that they do not know. */
const NOT_KNOWN: readonly number[] = [-ENODEV, -EINVAL, -EOPNOTSUPP];

/** Default time limit of every control command. */
const COMMAND_TIMEOUT_MS = 30_000;
/**
 * A stop waits for requests of its device: others wait for it only this long. The kernel itself runs it concurrently
 * with commands for other devices (ublk_drv.c, ublk_ctrl_stop_dev).
 */
const STOP_TURN_MS = 2_000;
/** Each is in a process of its own, and mostly waits: 0.1 s in User Mode Linux. */
const STOPS_MAX = 4;
/** Time limit to cancel a command that took too long. */
const CANCEL_TIMEOUT_MS = 1_000;

interface Command {
  readonly op: number;
  readonly name: string;
  readonly deviceId: number;
  /** Bytes sent, and overwritten with the response. */
  readonly buffer?: Uint8Array;
  readonly data?: number;
  readonly timeoutMs?: number;
  /** Cancels an interruptible command. */
  readonly signal?: AbortSignal | undefined;
}

export interface DeviceToAdd extends Omit<NewDevice, "id"> {
  readonly id: number | (() => number);
}

/**
 * The control plane of ublk, for the main thread. Commands run one at a time, since kernels were seen to lose concurrent
 * ones of a process (stops have processes of their own), and each has a time limit: a command that the kernel never
 * answers (known on some 6.17 and 6.18 releases) is cancelled and becomes an error instead of a hang.
 */
export class UblkControl {
  readonly #fd: number;
  readonly #ring: PromiseRing;
  /** Bits that the running kernel knows: those of UblkFeature, and others in later kernels. */
  readonly features: number;
  readonly #turns = new Serial();
  #closed = false;

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
    let ring: PromiseRing | undefined;
    try {
      ring = new PromiseRing(32, SetupFlag.SQE128);
      const features = await new UblkControl(fd, ring, 0).#readFeatures();
      return new UblkControl(fd, ring, features);
    } catch (error) {
      ring?.close();
      closeSync(fd);
      throw error;
    }
  }

  /** Cancels a command in flight; one that the kernel does not cancel stays until it ends. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#ring.close();
    closeSync(this.#fd);
  }

  /**
   * ADD_DEV: creates /dev/ublkcN. `id` -1 takes any free number; a function chooses it when no other command of this
   * object can take it any more.
   * @throws UblkError CONTROL_FAILED: EEXIST (number taken), EACCES (over ublks_max), EINVAL
   */
  addDevice(device: DeviceToAdd): Promise<UblkDeviceInfo> {
    return this.#turns.run(async () => {
      const id = typeof device.id === "number" ? device.id : device.id();
      const buffer = encodeDeviceInfo({ ...device, id });
      const deviceId = id < 0 ? ANY_DEVICE_ID : id;
      const command = { op: ControlCommand.ADD_DEV, name: "ADD_DEV", deviceId, buffer };
      this.#check(await this.#submit(command), command);
      return decodeDeviceInfo(buffer);
    });
  }

  /** GET_DEV_INFO; undefined if no device has that number. */
  async deviceInfo(deviceId: number): Promise<UblkDeviceInfo | undefined> {
    const buffer = new Uint8Array(DEV_INFO_BYTES);
    const command = { op: ControlCommand.GET_DEV_INFO, name: "GET_DEV_INFO", deviceId, buffer };
    const status = await this.#command(command);
    if (status === -ENODEV) return undefined;
    this.#check(status, command);
    return decodeDeviceInfo(buffer);
  }

  /** SET_PARAMS: only between ADD_DEV and START_DEV. @param zeroCopy the device has ZERO_COPY_FEATURES */
  async setParams(
    deviceId: number,
    params: DeviceParams,
    maxIoBytes: number,
    zeroCopy: boolean,
  ): Promise<void> {
    const buffer = encodeParams(params, maxIoBytes, zeroCopy);
    await this.#run({ op: ControlCommand.SET_PARAMS, name: "SET_PARAMS", deviceId, buffer });
  }

  /**
   * START_DEV: resolves when every tag was fetched and the block device exists.
   * @param signal cancels the wait for that: CONTROL_FAILED (EINTR or ECANCELED)
   */
  async startDevice(deviceId: number, signal?: AbortSignal): Promise<void> {
    const data = process.pid;
    await this.#run({ op: ControlCommand.START_DEV, name: "START_DEV", deviceId, data, signal });
  }

  /**
   * STOP_DEV: removes the block device; the server must continue serving until this resolves. The kernel waits in it
   * for the server's requests, so another process issues the command (apart.ts of @blksnap/uring): this one can be
   * killed meanwhile, and the device ends all the same.
   */
  async stopDevice(deviceId: number, timeoutMs: number = COMMAND_TIMEOUT_MS): Promise<void> {
    const command = { op: ControlCommand.STOP_DEV, name: "STOP_DEV", deviceId, timeoutMs };
    const words = new Int32Array(CONTROL_COMMAND_WORDS);
    words[0] = deviceId;
    words[1] = NO_QUEUE;
    const bytes = new Uint8Array(words.buffer);
    const status = await this.#turns.runTogether(
      () => inTime(commandInHelper(CONTROL_PATH, command.op, bytes), command, () => undefined),
      STOPS_MAX,
      STOP_TURN_MS,
    );
    this.#check(status, command);
  }

  /**
   * Deletes a stopped device without waiting for programs that still have its block device or /dev/ublkcN open: it is
   * gone as soon as they close it.
   * @param close closes /dev/ublkcN: called where the kernel does wait for that (before Linux 6.9)
   */
  async deleteDevice(deviceId: number, close?: () => void): Promise<void> {
    const command = { op: ControlCommand.DEL_DEV_ASYNC, name: "DEL_DEV_ASYNC", deviceId };
    const status = await this.#command(command);
    if (status !== -EOPNOTSUPP) return this.#check(status, command);
    close?.();
    await this.#run({ op: ControlCommand.DEL_DEV, name: "DEL_DEV", deviceId });
  }

  /**
   * START_USER_RECOVERY: EBUSY until the old server's last reference to /dev/ublkcN is gone. It resumes a recovery
   * whose server died before it fetched; up to Linux 6.15 the kernel refuses another begin with EINVAL (ublk_drv.c,
   * ublk_ctrl_start_recovery).
   */
  async startRecovery(deviceId: number): Promise<void> {
    const op = ControlCommand.START_USER_RECOVERY;
    const command = { op, name: "START_USER_RECOVERY", deviceId };
    const status = await this.#command(command);
    if (status === -EINVAL && (await this.#waitsForServer(deviceId))) return;
    this.#check(status, command);
  }

  async #waitsForServer(deviceId: number): Promise<boolean> {
    const info = await this.deviceInfo(deviceId);
    if (info === undefined || (info.features & UblkFeature.USER_RECOVERY) === 0) return false;
    return info.state === UblkState.QUIESCED || info.state === UblkState.FAIL_IO;
  }

  /** END_USER_RECOVERY: resolves when every tag was fetched again; the device is then live. */
  async endRecovery(deviceId: number): Promise<void> {
    const op = ControlCommand.END_USER_RECOVERY;
    await this.#run({ op, name: "END_USER_RECOVERY", deviceId, data: process.pid });
  }

  /** Whether the kernel has UPDATE_SIZE, for all devices, whatever these were made with. */
  get canUpdateSize(): boolean {
    return (this.features & UblkFeature.UPDATE_SIZE) !== 0;
  }

  /**
   * Whether the kernel notices the death of a server that holds all tags of a queue: since Linux 6.15, which has no
   * feature of its own; UPDATE_SIZE is of 6.16.
   */
  get noticesDeath(): boolean {
    return this.canUpdateSize;
  }

  /**
   * UPDATE_SIZE: gives a started device another size. Its users see that at once, and udev gets an event; requests
   * beyond the old size may come before this ends, so the server has to be able to serve them by now. The kernel checks
   * nothing: for a smaller size, the caller must know that the rest is unused.
   * @param capacityBytes a multiple of 512
   * @throws UblkError CONTROL_FAILED: ENODEV (not started, or gone), EOPNOTSUPP (see canUpdateSize)
   */
  async updateSize(deviceId: number, capacityBytes: number): Promise<void> {
    const op = ControlCommand.UPDATE_SIZE;
    const data = capacityBytes / SECTOR_BYTES;
    await this.#run({ op, name: "UPDATE_SIZE", deviceId, data });
  }

  async #readFeatures(): Promise<number> {
    const bytes = new Uint8Array(8);
    const command = { op: ControlCommand.GET_FEATURES, name: "GET_FEATURES", deviceId: 0 };
    const status = await this.#command({ ...command, buffer: bytes });
    if (status === -EPERM || status === -EACCES) {
      throw new UblkError("UBLK_NOT_PERMITTED", "ublk needs CAP_SYS_ADMIN; run as root", -status);
    }
    if (NOT_KNOWN.includes(status)) {
      throw new UblkError(
        "KERNEL_TOO_OLD",
        "the kernel's ublk driver is too old: Linux 6.5 or later is needed",
        -status,
      );
    }
    this.#check(status, command);
    return Number(new DataView(bytes.buffer).getBigUint64(0, true));
  }

  async #run(command: Command): Promise<void> {
    this.#check(await this.#command(command), command);
  }

  #check(status: number, command: Command): void {
    if (status >= 0) return;
    const what = `${command.name} failed for ${nameOf(command.deviceId)}`;
    throw new UblkError("CONTROL_FAILED", what, -status);
  }

  #command(command: Command): Promise<number> {
    return this.#turns.run(() => this.#submit(command));
  }

  #submit(command: Command): Promise<number> {
    const { buffer } = command;
    const memory = buffer && MappedMemory.anonymous(buffer.byteLength);
    if (memory && buffer) new Uint8Array(memory.buffer).set(buffer);
    const cancel = new AbortController();
    const giveUp = (): void => cancel.abort();
    command.signal?.addEventListener("abort", giveUp, { once: true });
    if (command.signal?.aborted) giveUp();
    // The memory belongs to the kernel until the command ends, even if nothing waits for it.
    const answer = this.#ring
      .submit(
        (ring, low, high) => this.#prepare(ring, command, memory, low, high),
        memory,
        cancel.signal,
      )
      .then((status) => {
        if (memory && buffer) {
          buffer.set(new Uint8Array(memory.buffer, 0, buffer.byteLength));
          memory.unmap();
        }
        command.signal?.removeEventListener("abort", giveUp);
        return status;
      });
    return inTime(answer, command, giveUp);
  }

  #prepare(
    ring: Ring,
    command: Command,
    memory: MappedMemory | undefined,
    userLow: number,
    userHigh: number,
  ): void {
    const cmd = prepareCommand(ring, this.#fd, command.op | 0, userLow, userHigh, 0);
    const words = ring.sqes32;
    words[cmd] = command.deviceId | 0;
    words[cmd + 1] = NO_QUEUE | ((command.buffer?.byteLength ?? 0) << 16);
    words[cmd + 2] = low32(memory?.address ?? 0);
    words[cmd + 3] = high32(memory?.address ?? 0);
    const { data = 0 } = command;
    words[cmd + 4] = low32(data);
    words[cmd + 5] = high32(data);
  }
}

/** The command's result; a late command is cancelled, and then no longer awaited. */
async function inTime(
  answer: Promise<number>,
  command: Command,
  cancel: () => void,
): Promise<number> {
  const timeoutMs = command.timeoutMs ?? COMMAND_TIMEOUT_MS;
  const what = `the kernel did not answer ${command.name} in ${timeoutMs} ms`;
  const error = new UblkError(
    "CONTROL_TIMEOUT",
    `${what} for ${nameOf(command.deviceId)}`,
    ETIMEDOUT,
  );
  try {
    return await bounded(answer, timeoutMs, () => error);
  } catch (failure) {
    if (failure !== error) throw failure;
    cancel();
    await bounded(answer, CANCEL_TIMEOUT_MS, () => error);
    throw error;
  }
}

function nameOf(deviceId: number): string {
  return deviceId === ANY_DEVICE_ID ? "a new device" : `ublk device ${deviceId}`;
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
  // devtmpfs creates the node before ADD_DEV ends; udev may still be changing its owner.
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

/** Numbers of the ublk devices that exist, with any server. */
export function listDeviceIds(): number[] {
  let names: string[];
  try {
    names = readdirSync(CLASS_PATH);
  } catch {
    // No module, no devices.
    return [];
  }
  return names.map((name) => Number(name.slice("ublkc".length))).sort((a, b) => a - b);
}

const NAME_OF_BIT: ReadonlyMap<number, string> = new Map(
  Object.entries(UblkFeature).map(([name, bit]) => [Math.log2(bit), name]),
);

/** Names of the set bits in the kernel's notation; an unknown one is "BIT_21". */
export function featureNames(features: number): string[] {
  const names: string[] = [];
  for (let bit = 0, rest = features; rest >= 1; bit++, rest = Math.floor(rest / 2)) {
    if (rest % 2 === 1) names.push(NAME_OF_BIT.get(bit) ?? `BIT_${bit}`);
  }
  return names;
}
