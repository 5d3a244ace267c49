/**
 * How users reach fronts and images. The layers above and below are the same for both kinds:
 *
 * ```
 *           trackers, snapshots, recovery
 *                       │
 *            Frontend, ServedDevice
 *              ┌────────┴─────────┐
 *    UblkFrontend              NbdFrontend
 *    block devices of the      exports of the daemon's NBD socket: no driver, and no
 *    kernel; a dead daemon's   rights are needed; a dead daemon's clients connect again
 *    users wait for the next
 *              └────────┬─────────┘
 *          the same queues and engine in the reactors
 * ```
 */
import type { DeviceQueueStart, doubtOf } from "@blksnap/data-plane";
import type { DeviceParams } from "@blksnap/ublk";

export type FrontendKind = "ublk" | "nbd";
export type DeviceRole = "front" | "image";

/** A front or an image, as users see it. */
export interface ServedDevice {
  /** N of /dev/ublkbN; null if it has none. */
  readonly id: number | null;
  /** What users open: `/dev/ublkbN`, or the address of an export. */
  readonly path: string;
  /** "major:minor" of the block device; empty if it is none, or has ended. */
  readonly deviceNumber: string;
  /** False if another program has ended it. */
  readonly isLive: boolean;
  /** Pages of requests are passed through, not copied. */
  readonly hasZeroCopy: boolean;
  /** What clients of an export may do; undefined if users have a block device. */
  readonly exported: DeviceParams | undefined;
  /** It accepts no new users at present. */
  readonly isHeld: boolean;
  /** What its users have. */
  readonly capacityBytes: number;
  /** Why that cannot change; undefined where it can grow in use. */
  readonly fixedWhy: string | undefined;
  /** @throws UblkError CONTROL_FAILED, CONTROL_TIMEOUT: it has the size that it had, or perhaps the new one */
  grow(capacityBytes: number): Promise<void>;
  /** Ends it. After a failure the caller can try again. */
  stop(): Promise<void>;
  /**
   * Notes that its queue has ended. Returns whether another program ended it.
   * @param forgetNumber called before another device can get its number
   */
  noteEnd(forgetNumber: () => void): boolean;
  /** Leaves it to another daemon. */
  release(): void;
  /**
   * Keeps new users away until the returned function is called.
   * @throws ControlError FRONT_IN_USE: it has users
   */
  hold(): Promise<() => Promise<void>>;
  /**
   * Resolves when everything written to it is on its original.
   * @param originalFd descriptor of the original
   * @returns 0 or a negative errno
   */
  sync(originalFd: number): Promise<number>;
}

/** How its queue is served in a reactor; see ServeOptions of `@blksnap/ublk`. */
export interface Serving {
  readonly startQueue: (queue: DeviceQueueStart) => Promise<void>;
  readonly queueEnded: () => Promise<void>;
  readonly doubtOf: typeof doubtOf;
  readonly role: DeviceRole;
  /** Programs must not find it by the signatures in its content. */
  readonly isHidden: boolean;
  /** "major:minor" of a front's original, for programs that look for its front; empty for a file, and for an image. */
  readonly original: string;
  /** Name of its export, if it is one. */
  readonly exportName: string;
  /** How many clients it has, if it is an export. */
  readonly connections: () => Promise<number>;
}

/** Its parameters for users. */
export interface Served extends Serving {
  readonly params: DeviceParams;
  readonly queueDepth: number;
  readonly maxIoBytes: number;
}

/** What a device's record contains before any user can reach the device. */
export interface NumberedDevice {
  /** Its number; null if it has none. */
  readonly id: number | null;
  readonly hasZeroCopy: boolean;
}

export interface NewServed extends Served {
  /** Passes users' pages through, if the kernel and the target support that. */
  readonly zeroCopy?: boolean;
  /** In place of maxIoBytes if it does. */
  readonly zeroCopyIoBytes?: number;
  /** Its own number must be larger than this one. */
  readonly above?: number | null;
  /** Whether to make the partitions of its table, before it is ready. */
  readonly hasPartitions: boolean;
  /** Called before any user can come, to write a record of it. */
  readonly onNumber: (made: NumberedDevice) => void;
}

/** A device that an earlier daemon has left. */
export interface ResumedServed extends Served {
  /** Called when it belongs to this daemon. */
  readonly onBegun: () => void;
}

/** Stable names of devices, for users and programs. */
export interface Links {
  /** Returns the name, if there is one now. @param place a second, unique name, below a folder */
  add(name: string, path: string, place?: string): string | undefined;
  remove(link: string | undefined, path: string): void;
  has(name: string, path: string): boolean;
}

export interface Frontend {
  readonly kind: FrontendKind;
  readonly links: Links;
  /** Makes and serves a device; leaves nothing behind if it fails. */
  start(served: NewServed): Promise<ServedDevice>;
  /** @param patienceMs how long to wait for the old daemon's last requests */
  resume(id: number | null, served: ResumedServed, patienceMs?: number): Promise<ServedDevice>;
  /** The image with this number, if an earlier daemon has left it and it can be resumed. */
  leftImage(
    id: number | null,
  ): Promise<{ readonly id: number; readonly queueDepth: number } | undefined>;
  /** True if a recorded front is gone and no user waits for it; then nothing is left of it. */
  isFrontGone(id: number | null): Promise<boolean>;
  /** Numbers of other fronts than these whose users may wait. */
  otherFronts(known: ReadonlySet<number>): Promise<number[]>;
  /** Removes an image, unless its number now belongs to a front or to another program. */
  removeImage(id: number): Promise<void>;
  /** Removes what earlier daemons have left, except these numbers. */
  removeOrphans(known: ReadonlySet<number>): Promise<void>;
  /** The name of a recorded front for messages. */
  nameOf(id: number | null): string;
  /** The devices that have users, and these users as far as they are visible. */
  inUse(devices: readonly ServedDevice[]): Promise<Map<ServedDevice, readonly string[]>>;
  makePartitions(device: ServedDevice): Promise<void>;
}
