import { closeSync, readdirSync, statSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { EBUSY, EEXIST, ENODEV } from "@blksnap/errors";
import { keyOfNumber } from "@blksnap/linux-block";
import { retry } from "@blksnap/uring";
import { UblkFeature, UblkState } from "./abi.js";
import { listDeviceIds, openCharacterDevice, type UblkControl } from "./control.js";
import { UblkError } from "./errors.js";
import type { DeviceParams, NewDevice, UblkDeviceInfo } from "./layout.js";
import { settleQueue } from "./queue-settings.js";
import { isZeroCopied, zeroCopyFeatures } from "./zero-copy.js";

/**
 * Marks a ublk device in the two words that the kernel keeps for its server: its kind, "BLKS" or "BLKI", and its
 * owner: ownerTag(), a digest of the state directory of the daemon that created it.
 */
export const DeviceMark = { FRONT: 0x424c4b53, IMAGE: 0x424c4b49 } as const;

type Marked = Pick<UblkDeviceInfo, "serverFlags" | "serverFlagsHigh">;

/** Whether a daemon with the state directory of this tag has created the device. */
export function isOurs({ serverFlags, serverFlagsHigh }: Marked, owner: number): boolean {
  const isMarked = serverFlags === DeviceMark.FRONT || serverFlags === DeviceMark.IMAGE;
  return isMarked && serverFlagsHigh === owner;
}

/** The next server gets a killed server's requests again; until then its users wait. */
const RECOVERABLE = UblkFeature.USER_RECOVERY | UblkFeature.USER_RECOVERY_REISSUE;

/**
 * How long to wait until the kernel has noticed the old server's death. Up to Linux 6.14 it takes its own 30 s
 * timeout if every tag was inside that server.
 */
export const RECOVERY_PATIENCE_MS = 60_000;
const POLL_INTERVAL_MS = 10;
/** Numbers to try: another process may be faster, and one that is being deleted is taken, but not listed. */
const NUMBERS_TRIED_MAX = 64;

/** A queue that will be served. */
export interface QueueStart {
  readonly charFd: number;
  readonly queueDepth: number;
  readonly maxIoBytes: number;
  /** As QueueOptions has it; the device says which. */
  readonly zeroCopy?: boolean;
}

export interface ServeOptions {
  /** Starts the queue on its reactor; resolves when every tag is about to be fetched. */
  readonly startQueue: (queue: QueueStart) => Promise<void>;
  /** Resolves when the queue's last command has returned. */
  readonly queueEnded: () => Promise<void>;
  /**
   * The doubt that an error of these two leaves: "served" if it is unknown whether the queue has begun or ended,
   * "unanswered" if no response came, but it certainly has not begun; undefined if there is no doubt.
   */
  readonly doubtOf: (error: unknown) => "served" | "unanswered" | undefined;
  /** Called before any program can see the device /dev/ublkbN, and when its number is free for others. */
  readonly onNumberTaken: (id: number) => void;
  readonly onNumberFreed: (id: number) => void;
}

export interface RecoverOptions extends ServeOptions {
  /** Expected kind: one of DeviceMark. */
  readonly mark: number;
  /** Called when the kernel waits for the new server. */
  readonly onBegun: () => void;
}

export interface NewDeviceOptions extends ServeOptions {
  /** One of DeviceMark. */
  readonly mark: number;
  /** Tag of the state directory with its record. */
  readonly owner: number;
  readonly params: DeviceParams;
  readonly queueDepth: number;
  readonly maxIoBytes: number;
  /** Zero copy, if the kernel and the file support it; its target must never examine bytes. */
  readonly zeroCopy?: boolean;
  /** In place of maxIoBytes with zero copy. */
  readonly zeroCopyIoBytes?: number;
  /** Its number must be larger than this one: a search in numeric order finds that device first. */
  readonly above?: number;
  /** Called with the device's number before any program can use it, to make a record of it. */
  readonly onNumber: (id: number, hasZeroCopy: boolean) => void;
  /** Runs when the device can be used, before it is ready. */
  readonly whenLive?: (path: string) => Promise<void>;
}

/**
 * A ublk device with one queue that another process can take over: /dev/ublkbN, from start() to stop(). If the
 * process dies its users wait, and recover() of the next one resumes it.
 */
export class RecoverableDevice {
  readonly id: number;
  /** `/dev/ublkbN` */
  readonly path: string;
  /** "major:minor" of the block device. */
  deviceNumber = "";
  /** Whether pages of requests are passed on without a copy. */
  readonly hasZeroCopy: boolean;
  readonly #control: UblkControl;
  readonly #charFd: number;
  readonly #mark: Marked;
  readonly #options: ServeOptions;
  #queueStarted = false;
  #isOpen = true;
  #isStopping = false;
  #isLive = true;
  /** Its queue has ended during a stop: what to call if that fails, as of noteEnd(). */
  #forgetNumber: (() => void) | undefined;
  /** Set if it is unknown whether a reactor serves the queue. */
  #mayBeServed = false;

  private constructor(
    control: UblkControl,
    id: number,
    charFd: number,
    mark: Marked,
    hasZeroCopy: boolean,
    options: ServeOptions,
  ) {
    this.#control = control;
    this.id = id;
    this.hasZeroCopy = hasZeroCopy;
    this.path = `/dev/ublkb${id}`;
    this.#charFd = charFd;
    this.#mark = mark;
    this.#options = options;
  }

  /** False if another program has ended it: its number may be another device's by now. */
  get isLive(): boolean {
    return this.#isLive;
  }

  /** Creates the device and makes it live; if it fails, nothing is left behind. */
  static async start(control: UblkControl, options: NewDeviceOptions): Promise<RecoverableDevice> {
    const { queueDepth, params, zeroCopyIoBytes = options.maxIoBytes } = options;
    const passed = zeroCopyFeatures(options.zeroCopy === true, control, params);
    const info = await addDevice(control, options.above, {
      queues: 1,
      queueDepth,
      maxIoBytes: passed === 0 ? options.maxIoBytes : zeroCopyIoBytes,
      // Partitions come from addPartitions() on all kernels (partitions.ts).
      features: RECOVERABLE | passed | (control.features & UblkFeature.NO_AUTO_PART_SCAN),
      serverFlags: options.mark,
      serverFlagsHigh: options.owner,
    });
    const { id, maxIoBytes } = info;
    const zeroCopy = isZeroCopied(info);
    options.onNumberTaken(id);
    let device: RecoverableDevice | undefined;
    try {
      await control.setParams(id, params, maxIoBytes, zeroCopy);
      const charFd = await openCharacterDevice(id);
      const mark = { serverFlags: options.mark, serverFlagsHigh: options.owner };
      device = new RecoverableDevice(control, id, charFd, mark, zeroCopy, options);
      options.onNumber(id, zeroCopy);
      await device.#startQueue(options, { charFd, queueDepth, maxIoBytes, zeroCopy });
      await control.startDevice(id);
      device.#readNumber();
      // If it fails, a death is only noticed later; the device still works. Together, because both mostly wait.
      await Promise.all([
        settleQueue(device.path, queueDepth, control.noticesDeath),
        options.whenLive?.(device.path),
      ]);
      return device;
    } catch (error) {
      options.onNumberFreed(id);
      if (device) await device.stop();
      else await control.deleteDevice(id);
      throw error;
    }
  }

  /**
   * Resumes a device whose server has died: its users have waited, and see no error.
   * @param owner tag of the state directory that has it on record
   * @param patienceMs how long to wait for the old server's last requests
   * @throws UblkError CONTROL_FAILED when there is no such device, it is another one, or never lived;
   * CONTROL_TIMEOUT
   */
  static async recover(
    control: UblkControl,
    id: number,
    owner: number,
    options: RecoverOptions,
    patienceMs: number = RECOVERY_PATIENCE_MS,
  ): Promise<RecoverableDevice> {
    const deadlineMs = performance.now() + patienceMs;
    const mark = { serverFlags: options.mark, serverFlagsHigh: owner };
    const info = await untilQuiesced(control, id, mark, deadlineMs);
    const { queueDepth, maxIoBytes } = info;
    const zeroCopy = isZeroCopied(info);
    await untilReleased(() => control.startRecovery(id), deadlineMs);
    options.onBegun();
    options.onNumberTaken(id);
    const charFd = await untilReleased(() => openCharacterDevice(id), deadlineMs);
    const device = new RecoverableDevice(control, id, charFd, mark, zeroCopy, options);
    try {
      await device.#startQueue(options, { charFd, queueDepth, maxIoBytes, zeroCopy });
      await control.endRecovery(id);
    } catch (error) {
      // Not stopped: its users continue waiting for a server that succeeds.
      device.release();
      throw error;
    }
    device.#readNumber();
    return device;
  }

  /**
   * Makes the block device larger, while it is in use: see UblkControl.updateSize().
   * @throws UblkError CONTROL_FAILED
   */
  async grow(capacityBytes: number): Promise<void> {
    if (!this.#isLive) throw new UblkError("CONTROL_FAILED", `${this.path} has ended`, ENODEV);
    await this.#control.updateSize(this.id, capacityBytes);
  }

  /**
   * Ends the device: programs that still have it open get I/O errors, and free its number when they close it. After a
   * failure it can be retried.
   */
  async stop(): Promise<void> {
    this.#isStopping = true;
    try {
      await this.#stop();
    } catch (error) {
      // Whoever ends it from now on, it is not this stop; and if it has ended, it cannot be held for another one.
      this.#isStopping = false;
      if (this.#isLive && this.#forgetNumber !== undefined) this.#gone(this.#forgetNumber);
      throw error;
    }
  }

  async #stop(): Promise<void> {
    let isThere = this.#isLive;
    if (isThere) {
      isThere = await isStopped(this.#control.stopDevice(this.id));
      // Before its number can be another device's.
      this.#options.onNumberFreed(this.id);
    }
    if (this.#queueStarted) await this.#untilQueueEnded();
    this.#queueStarted = false;
    try {
      // Before it is closed: afterwards a deletion takes 70 ms (User Mode Linux 7.3), and others wait for it.
      if (isThere) await this.#control.deleteDevice(this.id, () => this.#close());
    } finally {
      this.#close();
    }
    if (!isThere) await this.#deleteRest();
  }

  /**
   * Its queue has ended. Returns whether another program ended it: one that deletes it waits until it is closed here,
   * and then its number may be another device's.
   * @param forgetNumber called before that, so that no record has the number later
   */
  noteEnd(forgetNumber: () => void): boolean {
    if (this.#isStopping) this.#forgetNumber = forgetNumber;
    if (this.#isStopping || !this.#isLive) return false;
    this.#gone(forgetNumber);
    return true;
  }

  #gone(forgetNumber: () => void): void {
    this.#isLive = false;
    this.deviceNumber = "";
    forgetNumber();
    this.#options.onNumberFreed(this.id);
    this.#close();
  }

  /** Leaves it to another server: the kernel takes back the requests that this one had. */
  release(): void {
    // A queue that may have begun uses the descriptor by its number.
    if (!this.#mayBeServed) this.#close();
  }

  async #startQueue(options: ServeOptions, queue: QueueStart): Promise<void> {
    try {
      await options.startQueue(queue);
      this.#queueStarted = true;
    } catch (error) {
      this.#mayBeServed = options.doubtOf(error) === "served";
      this.#queueStarted = this.#mayBeServed;
      throw error;
    }
  }

  async #untilQueueEnded(): Promise<void> {
    try {
      await this.#options.queueEnded();
    } catch (error) {
      // A reactor that does not know the queue has not begun it.
      if (!this.#mayBeServed || this.#options.doubtOf(error) !== undefined) throw error;
    }
  }

  #close(): void {
    if (this.#isOpen) closeSync(this.#charFd);
    this.#isOpen = false;
  }

  /** A device that was only stopped still exists, and is dead. */
  async #deleteRest(): Promise<void> {
    const info = await this.#control.deviceInfo(this.id);
    const { serverFlags, serverFlagsHigh } = this.#mark;
    const isIt = info?.serverFlags === serverFlags && info.serverFlagsHigh === serverFlagsHigh;
    if (isIt && info.state === UblkState.DEAD) await this.#control.deleteDevice(this.id);
  }

  #readNumber(): void {
    const { rdev } = statSync(this.path);
    this.deviceNumber = keyOfNumber(rdev);
  }
}

/** @returns false if another program has deleted it */
async function isStopped(stopping: Promise<void>): Promise<boolean> {
  try {
    await stopping;
    return true;
  } catch (error) {
    if (!(error instanceof UblkError) || error.errno !== ENODEV) throw error;
    return false;
  }
}

async function addDevice(
  control: UblkControl,
  above: number | undefined,
  device: Omit<NewDevice, "id">,
): Promise<UblkDeviceInfo> {
  let last = above ?? -1;
  const next = (): number => {
    last = firstFree(last);
    return last;
  };
  for (let tried = 0; above !== undefined && tried < NUMBERS_TRIED_MAX; tried++) {
    try {
      return await control.addDevice({ ...device, id: next });
    } catch (error) {
      if (!(error instanceof UblkError) || error.errno !== EEXIST) throw error;
    }
  }
  return control.addDevice({ ...device, id: -1 });
}

/** The smallest number above this one that no device has. */
function firstFree(above: number): number {
  const taken = new Set(listDeviceIds());
  let id = above + 1;
  while (taken.has(id)) id++;
  return id;
}

async function untilQuiesced(
  control: UblkControl,
  id: number,
  { serverFlags, serverFlagsHigh }: Marked,
  deadlineMs: number,
) {
  for (;;) {
    const info = await control.deviceInfo(id);
    const isIt = info?.serverFlags === serverFlags && info.serverFlagsHigh === serverFlagsHigh;
    if (info === undefined || !isIt) {
      throw new UblkError("CONTROL_FAILED", `/dev/ublkb${id} is gone, or another device`, 19);
    }
    if (info.state === UblkState.DEAD) {
      throw new UblkError("CONTROL_FAILED", `/dev/ublkb${id} has ended`, 19);
    }
    if (info.state !== UblkState.LIVE) return info;
    if (performance.now() > deadlineMs) {
      throw new UblkError("CONTROL_TIMEOUT", `/dev/ublkb${id} still has its old server`, 110);
    }
    await sleep(POLL_INTERVAL_MS);
  }
}

/** The kernel accepts a new server when the last reference of the old one's requests is gone. */
function untilReleased<Value>(attempt: () => Promise<Value>, deadlineMs: number): Promise<Value> {
  const isPassing = (error: unknown) => error instanceof UblkError && error.errno === EBUSY;
  return retry(attempt, { isPassing, deadlineMs, intervalMs: POLL_INTERVAL_MS });
}

/** All ublk devices that daemons with this state directory have created, with any server. */
export async function ownDevices(control: UblkControl, owner: number): Promise<UblkDeviceInfo[]> {
  const own: UblkDeviceInfo[] = [];
  for (const name of readdirSync("/sys/class/ublk-char")) {
    const id = Number(name.replace("ublkc", ""));
    const info = await control.deviceInfo(id);
    if (info !== undefined && isOurs(info, owner)) own.push(info);
  }
  return own;
}
