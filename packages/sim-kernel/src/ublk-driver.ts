/** /dev/ublk-control: makes, starts, stops, recovers and deletes simulated ublk devices. */
import { Errno } from "./errno.js";
import type { SimMachine } from "./machine.js";
import { CharacterDevice, Directory, type FileSystem, type UringCommand } from "./nodes.js";
import { UblkDevice, UblkFlag, UblkState } from "./ublk-device.js";

const Command = {
  GET_DEV_INFO: 0x80207502,
  ADD_DEV: 0xc0207504,
  DEL_DEV: 0xc0207505,
  START_DEV: 0xc0207506,
  STOP_DEV: 0xc0207507,
  SET_PARAMS: 0xc0207508,
  START_USER_RECOVERY: 0xc0207510,
  END_USER_RECOVERY: 0xc0207511,
  GET_FEATURES: 0x80207513,
  DEL_DEV_ASYNC: 0x80207514,
  UPDATE_SIZE: 0xc0207515,
} as const;
const MISC_MAJOR = 10;
const CONTROL_MINOR = 120;
const ANY_ID = 0xffff_ffff;
const DEV_INFO_BYTES = 64;
const PARAMS_BYTES = 152;
const SECTOR_BYTES = 512;
const LATENCY_US = 200;

/** A fault of a control command. */
export interface CommandFault {
  /** It fails, without effect. */
  readonly errno?: number;
  readonly delayMs?: number;
  /** It is not carried out or answered until release(), unless it is cancelled. */
  readonly hangs?: boolean;
}

export class UblkDriver extends CharacterDevice {
  readonly devices: Map<number, UblkDevice> = new Map();
  /** Called for each command; the name is the kernel's, such as START_DEV. */
  fault: ((name: string, id: number) => CommandFault | undefined) | undefined;
  readonly #machine: SimMachine;
  readonly #fs: FileSystem;
  readonly #hung: (() => void)[] = [];
  /** Deleted devices whose numbers are not free yet. */
  readonly #onReleased = new Map<UblkDevice, (() => void)[]>();

  constructor(fs: FileSystem, machine: SimMachine) {
    super(fs, MISC_MAJOR, CONTROL_MINOR);
    this.#fs = fs;
    this.#machine = machine;
  }

  override command(command: UringCommand): void {
    if (command.words.length < 20) {
      command.done(-Errno.EINVAL);
      return;
    }
    const id = command.words[0] >>> 0;
    const name = Object.entries(Command).find(([, op]) => op === command.op)?.[0] ?? "?";
    const fault = this.fault?.(name, id);
    const delayUs = 1 + this.#machine.random.below(LATENCY_US) + 1000 * (fault?.delayMs ?? 0);
    let isCancelled = false;
    const carryOut = (): void => {
      if (isCancelled) return;
      command.cancel = undefined;
      this.#machine.trace(`ublk ${name} ${id === ANY_ID ? "new" : id}`);
      if (fault?.errno !== undefined) command.done(-fault.errno);
      else this.#carryOut(command, id);
    };
    if (fault?.hangs !== true) {
      const event = this.#machine.scheduler.after(delayUs, carryOut);
      command.cancel = () => {
        if (command.process.isAlive) return undefined;
        event.cancel();
        this.#endWithProcess(command, carryOut);
        return undefined;
      };
      return;
    }
    this.#machine.trace(`ublk ${name} ${id} hangs`);
    this.#hung.push(carryOut);
    command.cancel = () => {
      isCancelled = true;
      return -Errno.ECANCELED;
    };
  }

  /**
   * Its process is being killed: a command that a worker has begun is completed before the process is gone, if it need
   * not wait; a queued one is dropped. Neither is left for the next life.
   */
  #endWithProcess(command: UringCommand, carryOut: () => void): void {
    if (!this.#machine.random.oneIn(2)) return;
    carryOut();
    command.cancel?.();
  }

  /** Carries out commands that hang. */
  release(): void {
    for (const carryOut of this.#hung.splice(0)) carryOut();
  }

  #carryOut(command: UringCommand, id: number): void {
    if (command.op === Command.GET_FEATURES) {
      command.done(this.#answer(command, featureBytes(this.#machine.ublkKernel.features)));
      return;
    }
    if (command.op === Command.ADD_DEV) {
      command.done(this.#add(command, id));
      return;
    }
    const device = this.devices.get(id);
    if (device === undefined) command.done(-Errno.ENODEV);
    else this.#onDevice(command, device);
  }

  #onDevice(command: UringCommand, device: UblkDevice): void {
    switch (command.op) {
      case Command.GET_DEV_INFO:
        command.done(this.#answer(command, infoOf(device)));
        return;
      case Command.SET_PARAMS:
        command.done(this.#setParams(command, device));
        return;
      case Command.START_DEV:
        this.#start(command, device);
        return;
      case Command.STOP_DEV:
        device.stop(() => command.done(0));
        return;
      case Command.START_USER_RECOVERY:
        command.done(startRecovery(device));
        return;
      case Command.END_USER_RECOVERY:
        this.#endRecovery(command, device);
        return;
      case Command.UPDATE_SIZE:
        command.done(this.#updateSize(command, device));
        return;
      case Command.DEL_DEV:
      case Command.DEL_DEV_ASYNC:
        this.#delete(command, device);
        return;
      default:
        command.done(-Errno.EOPNOTSUPP);
    }
  }

  /** The bytes of a command's buffer. */
  #buffer({ words }: UringCommand): Uint8Array | number {
    const address = (words[3] >>> 0) * 2 ** 32 + (words[2] >>> 0);
    return this.#machine.memory.view(address, words[1] >>> 16);
  }

  #answer(command: UringCommand, bytes: Uint8Array): number {
    const buffer = this.#buffer(command);
    if (typeof buffer === "number") return buffer;
    buffer.set(bytes.subarray(0, buffer.length));
    return 0;
  }

  #add(command: UringCommand, wanted: number): number {
    const buffer = this.#buffer(command);
    if (typeof buffer === "number") return buffer;
    if (buffer.length < DEV_INFO_BYTES) return -Errno.EINVAL;
    const view = new DataView(buffer.buffer, buffer.byteOffset, buffer.byteLength);
    if (view.getUint32(12, true) !== wanted) return -Errno.EINVAL;
    const id = wanted === ANY_ID ? this.#freeId() : wanted;
    if (this.#isTaken(id)) return -Errno.EEXIST;
    const flags = Number(view.getBigUint64(24, true)) & this.#machine.ublkKernel.features;
    const info = {
      id,
      depth: view.getUint16(2, true),
      maxIoBytes: view.getUint32(8, true),
      flags,
      serverFlags: view.getUint32(32, true),
      serverFlagsHigh: view.getUint32(36, true),
    };
    const device = new UblkDevice(this.#fs, info, this.#machine);
    this.devices.set(id, device);
    this.#machine.tree.directory("/dev").set(`ublkc${id}`, device);
    this.#machine.tree.directory("/sys/class/ublk-char").set(`ublkc${id}`, new Directory(this.#fs));
    buffer.set(infoOf(device));
    return 0;
  }

  #freeId(): number {
    let id = 0;
    while (this.#isTaken(id)) id++;
    return id;
  }

  #isTaken(id: number): boolean {
    if (this.devices.has(id)) return true;
    return [...this.#onReleased.keys()].some(({ info }) => info.id === id);
  }

  #setParams(command: UringCommand, device: UblkDevice): number {
    if (device.state !== UblkState.DEAD || device.block !== undefined) return -Errno.EACCES;
    const buffer = this.#buffer(command);
    if (typeof buffer === "number") return buffer;
    if (buffer.length !== PARAMS_BYTES) return -Errno.EINVAL;
    device.params = new DataView(buffer.slice().buffer);
    return 0;
  }

  #updateSize({ words }: UringCommand, { block }: UblkDevice): number {
    if ((this.#machine.ublkKernel.features & UblkFlag.UPDATE_SIZE) === 0) return -Errno.EOPNOTSUPP;
    if (block === undefined) return -Errno.ENODEV;
    const sectors = (words[5] >>> 0) * 2 ** 32 + (words[4] >>> 0);
    block.capacityBytes = sectors * SECTOR_BYTES;
    return 0;
  }

  #start(command: UringCommand, device: UblkDevice): void {
    if (device.state === UblkState.LIVE || device.block !== undefined) {
      command.done(-Errno.EEXIST);
      return;
    }
    if (device.params === undefined) {
      command.done(-Errno.EINVAL);
      return;
    }
    const forget = device.whenFetched(() => {
      device.serverPid = command.words[4];
      this.#machine.addBlockDevice(device.makeBlock(this.#fs), {
        nr_requests: {
          read: () => String(device.requestsMax),
          write: (text) => {
            device.requestsMax = Number(text);
            return text.length;
          },
        },
      });
      device.goLive();
      command.done(0);
    });
    command.cancel = () => {
      forget();
      return -Errno.EINTR;
    };
  }

  #endRecovery(command: UringCommand, device: UblkDevice): void {
    if (device.state !== UblkState.QUIESCED) {
      command.done(-Errno.EBUSY);
      return;
    }
    const forget = device.whenFetched(() => {
      device.serverPid = command.words[4];
      device.goLive();
      command.done(0);
    });
    command.cancel = () => {
      forget();
      return -Errno.EINTR;
    };
  }

  #delete(command: UringCommand, device: UblkDevice): void {
    device.stop(() => {
      const { id } = device.info;
      if (this.devices.get(id) === device) {
        device.isDeleted = true;
        this.devices.delete(id);
        this.#machine.tree.directory("/dev").remove(`ublkc${id}`);
        this.#machine.tree.directory("/sys/class/ublk-char").remove(`ublkc${id}`);
        this.#onReleased.set(device, []);
      }
      if (command.op === Command.DEL_DEV_ASYNC) command.done(0);
      else this.#onReleased.get(device)?.push(() => command.done(0));
      this.releaseIfUnused(device);
    });
  }

  /** Frees the number when nothing has the device open any more. */
  releaseIfUnused(device: UblkDevice): void {
    const told = this.#onReleased.get(device);
    if (told === undefined || !device.isUnused) return;
    this.#onReleased.delete(device);
    for (const done of told) done();
  }
}

function featureBytes(features: number): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setUint32(0, features, true);
  return bytes;
}

function infoOf(device: UblkDevice): Uint8Array {
  const { info } = device;
  const bytes = new Uint8Array(DEV_INFO_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, 1, true);
  view.setUint16(2, info.depth, true);
  view.setUint16(4, device.state, true);
  view.setUint32(8, info.maxIoBytes, true);
  view.setUint32(12, info.id, true);
  view.setInt32(16, device.serverPid, true);
  view.setUint32(24, info.flags, true);
  view.setUint32(32, info.serverFlags, true);
  view.setUint32(36, info.serverFlagsHigh, true);
  return bytes;
}

function startRecovery(device: UblkDevice): number {
  if ((device.info.flags & UblkFlag.USER_RECOVERY) === 0) return -Errno.EINVAL;
  if (device.isOpen || device.state !== UblkState.QUIESCED) return -Errno.EBUSY;
  // As in Linux up to 6.15: only once for each death.
  if (device.isRecovering) return -Errno.EINVAL;
  device.isRecovering = true;
  return 0;
}
