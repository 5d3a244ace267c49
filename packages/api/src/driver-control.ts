/**
 * What the control server asks of the driver: one method per operation of the API.
 *
 * Rules for implementations:
 * - A device may be named by its original or its front, by any path that leads to it.
 * - An operation that fails throws an error whose `code` is a name of the catalogue in
 *   `@blksnap/api` (`ControlError` is one), and leaves nothing half done. Anything else that is
 *   thrown is answered as INTERNAL and logged.
 * - Calls come concurrently; the driver serialises what must not overlap.
 * - Waits end at once when their signal aborts; then the result is not looked at.
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
  /** Absolute paths, or `memory:`, in the order in which they are filled. */
  readonly stores: readonly string[];
  readonly limitBytes: number;
  /** Absent: break the snapshot. */
  readonly onOverflow?: OverflowPolicy;
  /** Comes back after a stop or a power cut; needs persistent trackers and stores on disks. */
  readonly persistent?: boolean;
  /** Images refuse writes. */
  readonly readOnlyImages?: boolean;
  /** They do, and who reads one over NBD may discard what it has read. */
  readonly releasableImages?: boolean;
}

export interface SnapshotTakeOptions {
  /** Fail unless every file system with data on the devices is frozen. */
  readonly requireFreeze?: boolean;
}

export interface AttachRequestOptions {
  /** Keep the changed-block map through stops and power cuts. A device that was so stays so. */
  readonly persistent?: boolean;
  /** Absent: live where the device is a device-mapper node in use, else front. */
  readonly kind?: AttachResponse["attach_kind"];
}

export interface DetachRequestOptions {
  /**
   * Keep nothing of a persistent tracker: the next attach begins a new generation. Where it is not attached, as its
   * device is away, what is remembered of it by this name is deleted.
   */
  readonly forget?: boolean;
}

/** A diff whose ranges come in batches: there may be a million. */
export interface DiffAnswer extends Omit<DiffResponse, "ranges"> {
  readonly ranges: AsyncIterable<DiffResponse["ranges"]>;
}

export interface DriverControl {
  version(): Promise<VersionResponse>;
  status(): Promise<StatusResponse>;
  /** The counters of the driver and its reactors; the server adds its own. */
  metrics(): Promise<readonly MetricFamily[]>;

  /** Attaching a tracked device once more succeeds, with `already_attached`. */
  attach(device: string, options: AttachRequestOptions): Promise<AttachResponse>;
  detach(device: string, options: DetachRequestOptions): Promise<DetachResponse>;
  cbtInfo(device: string): Promise<CbtInfo>;
  /** Bytes of the frozen map, one per block; the server copies them before anything else runs. */
  readCbtMap(device: string, firstBlock: number, count: number): Promise<Uint8Array>;
  markDirty(device: string, ranges: readonly ByteRange[]): Promise<MarkDirtyResponse>;
  /**
   * Marks the blocks under a file. `device` is a check: where it is given, the file must lie on it.
   */
  markDirtyFile(file: string, device?: string): Promise<MarkDirtyFileResponse>;
  /** What changed after snapshot number `since` up to the last taken one, all of it of one take. */
  diff(device: string, since: number): Promise<DiffAnswer>;
  /** As `status` has it. */
  trackerStatus(device: string): Promise<TrackerStatus>;
  snapshotInfo(device: string): Promise<SnapshotInfo>;

  /**
   * Attaches devices that are not tracked yet; where one can't be added, nothing is left. Nor when the
   * signal aborts: its client has gone. Waits for its stores for as long as they make progress, and tells
   * `onProgress` how far they are.
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
  /** As `status` has it. */
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
  /** All events that are kept, taken or not. */
  listEvents(id: string): Promise<readonly SnapshotEvent[]>;
  /**
   * Events from sequence number `from` on, those that are still kept and those to come, without
   * taking them out of the queue. Rejects for an unknown snapshot; the iteration ends when the
   * snapshot is destroyed.
   */
  followEvents(
    id: string,
    from: number,
    signal: AbortSignal,
  ): Promise<AsyncIterable<SnapshotEvent>>;
}

/** What the control server asks of the part of the daemon that receives NBD clients by TCP. */
export interface NbdControl {
  list(): readonly NbdListener[];
  /** @throws ControlError NBD_NOT_SECURE, NBD_CERTIFICATES_UNUSABLE, NBD_LISTEN_FAILED */
  open(request: NbdListenerOpenRequest): Promise<NbdListener>;
  /**
   * Ends its connections too. Answers it as it was.
   * @throws ControlError NBD_LISTENER_NOT_FOUND
   */
  close(query: NbdListenerQuery): Promise<NbdListener>;
}

/** What the control server asks of the daemon around the driver. Each answers, and then it happens. */
export interface DaemonControl {
  /**
   * Leaves the devices to a daemon started from the program as it is on disk now.
   * @throws ControlError UPGRADE_FAILED, UPGRADE_UNATTENDED: this daemon continues
   */
  upgrade(): Promise<DaemonUpgradeResponse>;
  /**
   * Ends the daemon: with `keep` the devices wait for the next one, else they are detached.
   * @throws ControlError DAEMON_IN_USE without `keep`
   */
  stop(keep: boolean): Promise<DaemonStopResponse>;
}
