/**
 * How users reach fronts and images. Everything above and below is the same for both kinds:
 *
 * ```
 *           trackers, snapshots, recovery
 *                       │
 *            Frontend, ServedDevice
 *              ┌────────┴─────────┐
 *    UblkFrontend              NbdFrontend
 *    block devices of the      exports of the daemon's NBD socket: no driver, and no
 *    kernel; a dead daemon's   rights are needed; a dead daemon's clients connect anew
 *    users wait for the next
 *              └────────┬─────────┘
 *          the same queues and engine in the reactors
 * ```
 */
import type { DeviceQueueStart, doubtOf } from "@blksnap/data-plane";
import type { DeviceParams } from "@blksnap/ublk";

export type FrontendKind = "ublk" | "nbd";
export type DeviceRole = "front" | "image";

/** A front or an image, as users have it. */
export interface ServedDevice {
  /** N of /dev/ublkbN; null where it has none. */
  readonly id: number | null;
  /** What users open: `/dev/ublkbN`, or the address of an export. */
  readonly path: string;
  /** "major:minor" of the block device; empty where it is none, or has ended. */
  readonly deviceNumber: string;
  /** False when another program has ended it. */
  readonly isLive: boolean;
  /** Pages of requests are passed on, and not copied. */
  readonly hasZeroCopy: boolean;
  /** What clients of an export may do; undefined where users have a block device. */
  readonly exported: DeviceParams | undefined;
  /** It takes no new users just now. */
  readonly isHeld: boolean;
  /** Ends it. Where it fails it can be tried again. */
  stop(): Promise<void>;
  /**
   * Its queue has ended. Answers whether another program ended it.
   * @param forgetNumber called before its number can be another device's
   */
  noteEnd(forgetNumber: () => void): boolean;
  /** Leaves it to another daemon. */
  letGo(): void;
  /**
   * Keeps new users away until the answer is called.
   * @throws ControlError FRONT_IN_USE: it has users
   */
  hold(): Promise<() => Promise<void>>;
  /**
   * Ends when all that was written to it is on its original.
   * @param originalFd descriptor of that
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
  /** It is not to be found by the signatures that it bears. */
  readonly isHidden: boolean;
  /** "major:minor" of a front's original, for those who look for its front; empty for a file, and of an image. */
  readonly original: string;
  /** Of its export, where it is one. */
  readonly exportName: string;
  /** How many clients it has, where it is an export. */
  readonly connections: () => Promise<number>;
}

/** What it is to users. */
export interface Served extends Serving {
  readonly params: DeviceParams;
  readonly queueDepth: number;
  readonly maxIoBytes: number;
}

/** What the record of a device has before any user can reach it. */
export interface NumberedDevice {
  /** Its number; null where it has none. */
  readonly id: number | null;
  readonly hasZeroCopy: boolean;
}

export interface NewServed extends Served {
  /** Users' pages are passed on, where the kernel can and what is served takes them. */
  readonly zeroCopy?: boolean;
  /** A number that its own is to be larger than. */
  readonly above?: number | null;
  /** Called before any user can come, to make a record of it. */
  readonly onNumber: (made: NumberedDevice) => void;
}

/** One that an earlier daemon has left. */
export interface ResumedServed extends Served {
  /** Called when it is this daemon's. */
  readonly onBegun: () => void;
}

/** Stable names of devices, for users and programs. */
export interface Links {
  /** Answers the name, where there is one now. @param place another one, in a folder, that no other device has */
  add(name: string, path: string, place?: string): string | undefined;
  remove(link: string | undefined, path: string): void;
  has(name: string, path: string): boolean;
}

export interface Frontend {
  readonly kind: FrontendKind;
  readonly links: Links;
  /** Makes it, and serves it; when it fails nothing is left behind. */
  start(served: NewServed): Promise<ServedDevice>;
  /** @param patienceMs how long the old daemon's last requests are waited for */
  resume(id: number | null, served: ResumedServed, patienceMs?: number): Promise<ServedDevice>;
  /** The image of this number, where an earlier daemon has left it and it can be resumed. */
  leftImage(
    id: number | null,
  ): Promise<{ readonly id: number; readonly queueDepth: number } | undefined>;
  /** Whether a front on record has gone, with no user left that could wait for it; then nothing is left of it. */
  isFrontGone(id: number | null): Promise<boolean>;
  /** Numbers of fronts with users that may wait, but for these. */
  otherFronts(known: ReadonlySet<number>): Promise<number[]>;
  /** Removes an image; not where the number is a front's by now, or another program's. */
  removeImage(id: number): Promise<void>;
  /** Removes what earlier daemons have left, but for these numbers. */
  removeOrphans(known: ReadonlySet<number>): Promise<void>;
  /** How a front on record is called in messages. */
  nameOf(id: number | null): string;
  /** Those that have users, which are named as far as they can be seen. */
  inUse(devices: readonly ServedDevice[]): Promise<Map<ServedDevice, readonly string[]>>;
  makePartitions(device: ServedDevice): Promise<void>;
}
