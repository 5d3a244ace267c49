/**
 * What the control server needs of the driver: one method per operation of the API.
 *
 * Rules for implementations:
 * - A device may be named by its original or its front, by any path that leads to it.
 * - An operation that fails throws an error whose `code` is a name of the catalogue in
 *   `@blksnap/api` (`ControlError` is one), and leaves nothing half done. Anything else that is
 *   thrown is answered as INTERNAL and logged.
 * - Calls are concurrent; the driver serialises what must not overlap.
 * - Waits end at once when their signal aborts; their result is then ignored.
 */

import type { MetricFamily } from "./metric-family.js";
import type {
  AttachResponse,
  ByteRange,
  CbtInfo,
  DaemonStopResponse,
  DaemonUpgradeResponse,
  DetachResponse,
  DiffResponse,
  MarkDirtyFileResponse,
  MarkDirtyResponse,
  NbdListener,
  NbdListenerOpenRequest,
  NbdListenerQuery,
  OverflowPolicy,
  SnapshotAddResponse,
  SnapshotCreateProgress,
  SnapshotCreateResponse,
  SnapshotEvent,
  SnapshotInfo,
  SnapshotStatus,
  SnapshotSummary,
  SnapshotTakeResponse,
  StatusResponse,
  TrackerStatus,
  VersionResponse,
} from "./types.js";

export interface SnapshotCreateOptions {
  readonly devices: readonly string[];
  /** Absolute paths, or `memory:`; filled in this order. */
  readonly stores: readonly string[];
  readonly limitBytes: number;
  /** Absent: break the snapshot. */
  readonly onOverflow?: OverflowPolicy;
  /** Survives a stop or a power cut; needs persistent trackers and stores on disks. */
  readonly persistent?: boolean;
  /** Images refuse writes. */
  readonly readOnlyImages?: boolean;
  /** Images refuse writes, and their reader may discard over NBD what it has read. */
  readonly releasableImages?: boolean;
}

export interface SnapshotTakeOptions {
  /** Fail unless every file system with data on the devices is frozen. */
  readonly requireFreeze?: boolean;
}

export interface AttachRequestOptions {
  /** Keep the changed-block map through stops and power cuts. A persistent tracker stays persistent. */
  readonly persistent?: boolean;
  /** Absent: live for a device-mapper node in use, else front. */
  readonly kind?: AttachResponse["attach_kind"];
}

export interface DetachRequestOptions {
  /**
   * Keep nothing of a persistent tracker: the next attach begins a new generation. Where it is not attached, as its
   * device is away, what is remembered of it by this name is deleted.
   */
  readonly forget?: boolean;
}

/** A diff whose ranges come in batches, because there may be a million. */
export interface DiffAnswer extends Omit<DiffResponse, "ranges"> {
  readonly ranges: AsyncIterable<DiffResponse["ranges"]>;
}

export interface DriverControl {
  version(): Promise<VersionResponse>;
  status(): Promise<StatusResponse>;
  /** The counters of the driver and its reactors; the server adds its own. */
  metrics(): Promise<readonly MetricFamily[]>;

  /** Attaching a tracked device again succeeds, with `already_attached`. */
  attach(device: string, options: AttachRequestOptions): Promise<AttachResponse>;
  detach(device: string, options: DetachRequestOptions): Promise<DetachResponse>;
  cbtInfo(device: string): Promise<CbtInfo>;
  /** The frozen map, one byte per block; the server copies it before anything else runs. */
  readCbtMap(device: string, firstBlock: number, count: number): Promise<Uint8Array>;
  markDirty(device: string, ranges: readonly ByteRange[]): Promise<MarkDirtyResponse>;
  /**
   * Marks the blocks under a file. If `device` is given, the file must lie on it.
   */
  markDirtyFile(file: string, device?: string): Promise<MarkDirtyFileResponse>;
  /** What changed after snapshot number `since` up to the last taken one; all of one take. */
  diff(device: string, since: number): Promise<DiffAnswer>;
  /** One entry of `status`. */
  trackerStatus(device: string): Promise<TrackerStatus>;
  snapshotInfo(device: string): Promise<SnapshotInfo>;

  /**
   * Attaches devices that are not tracked yet. If one cannot be added, or the signal aborts because the client is
   * gone, nothing is left. Waits for its stores as long as they make progress, and reports that to `onProgress`.
   */
  snapshotCreate(
    options: SnapshotCreateOptions,
    signal?: AbortSignal,
    onProgress?: (progress: SnapshotCreateProgress) => void,
  ): Promise<SnapshotCreateResponse>;
  snapshotAdd(id: string, device: string): Promise<SnapshotAddResponse>;
  snapshotTake(id: string, options?: SnapshotTakeOptions): Promise<SnapshotTakeResponse>;
  snapshotDestroy(id: string): Promise<void>;
  snapshotCollect(): Promise<readonly SnapshotSummary[]>;
  /** One entry of `status`. */
  snapshotStatus(id: string): Promise<SnapshotStatus>;

  /**
   * Takes the oldest event that this reader has not taken; undefined when `timeoutMs` have passed
   * without one.
   */
  waitEvent(
    id: string,
    timeoutMs: number,
    signal: AbortSignal,
    reader?: string,
  ): Promise<SnapshotEvent | undefined>;
  /** All kept events, taken or not. */
  listEvents(id: string): Promise<readonly SnapshotEvent[]>;
  /**
   * Kept and new events from sequence number `from` on, without taking them out of the queue. Rejects for an unknown
   * snapshot; the iteration ends when the snapshot is destroyed.
   */
  followEvents(
    id: string,
    from: number,
    signal: AbortSignal,
  ): Promise<AsyncIterable<SnapshotEvent>>;
}

/** What the control server needs of the part of the daemon that accepts NBD clients by TCP. */
export interface NbdControl {
  list(): readonly NbdListener[];
  /** @throws ControlError NBD_NOT_SECURE, NBD_CERTIFICATES_UNUSABLE, NBD_LISTEN_FAILED */
  open(request: NbdListenerOpenRequest): Promise<NbdListener>;
  /**
   * Ends its connections, too. Returns its last state.
   * @throws ControlError NBD_LISTENER_NOT_FOUND
   */
  close(query: NbdListenerQuery): Promise<NbdListener>;
}

/** What the control server needs of the daemon around the driver. Each call returns before its effect. */
export interface DaemonControl {
  /**
   * Leaves the devices to a daemon started from the program that is on disk now.
   * @throws ControlError UPGRADE_FAILED, UPGRADE_UNATTENDED: this daemon continues
   */
  upgrade(): Promise<DaemonUpgradeResponse>;
  /**
   * Ends the daemon. With `keep` the devices wait for the next one, else they are detached.
   * @throws ControlError DAEMON_IN_USE without `keep`
   */
  stop(keep: boolean): Promise<DaemonStopResponse>;
}
