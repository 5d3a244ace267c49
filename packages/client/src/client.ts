/** A typed client of the daemon's control API: one method per operation. */
import {
  type AttachRequestOptions,
  type AttachResponse,
  type ByteRange,
  CBT_MAP_SLICE_MAX_BYTES,
  type CbtInfo,
  DAEMON_SETTINGS,
  type DaemonEvent,
  type DaemonStopResponse,
  type DaemonUpgradeResponse,
  type DetachResponse,
  type DiffRange,
  type DiffResponse,
  type ListEventsResponse,
  MARK_RANGES_MAX,
  type MarkDirtyFileResponse,
  type MarkDirtyResponse,
  type OverflowPolicy,
  type SnapshotAddResponse,
  type SnapshotCreateProgress,
  type SnapshotCreateResponse,
  type SnapshotEvent,
  type SnapshotId,
  type SnapshotInfo,
  type SnapshotList,
  type SnapshotStatus,
  type SnapshotSummary,
  type SnapshotTakeResponse,
  type StatusResponse,
  socketPath,
  type TrackerStatus,
  type VersionResponse,
  type WaitEventResponse,
} from "@blksnap/api";
import { type ChangedExtentsOptions, changedExtents } from "./changed-extents.js";
import { BlksnapClientError, errorFromAnswer } from "./client-error.js";
import { type DaemonUpgrade, untilAnswer, untilGone } from "./daemon-change.js";
import { type DaemonEventsOptions, daemonEvents } from "./daemon-events.js";
import { eventLines } from "./event-lines.js";
import { NbdListeners } from "./nbd-listeners.js";
import { query, snapshotPath } from "./request-path.js";
import { resumed } from "./resumed.js";
import {
  type Call,
  type CallOptions,
  limited,
  parsed,
  send,
  sendForJson,
  sendForLines,
} from "./transport.js";

/** Enough for a take that waits for busy file systems to freeze. */
const TIMEOUT_DEFAULT_MS = 120_000;
/** Hooks have their time limit before a take, and up to twice that after it, where each has its own share. */
const TAKE_TIMEOUT_MS = TIMEOUT_DEFAULT_MS + 3 * DAEMON_SETTINGS.hookTimeoutMs.most;
/** Time for each half of an upgrade: loading the next daemon, and its takeover. */
const UPGRADE_TIMEOUT_MS = 180_000;
/** The response to a wait comes at most this much after the wait's own timeout. */
const WAIT_SLACK_MS = 10_000;
/** Attempts to read a map that changes meanwhile. */
const MAP_READ_ATTEMPTS_MAX = 5;

export interface BlksnapClientOptions {
  /** Default: $BLKSNAP_SOCKET, else /run/blksnap/blksnapd.sock. */
  readonly socketPath?: string;
  /** Time limit for one response. Default: two minutes. */
  readonly timeoutMs?: number;
  /** How long each call waits for a daemon that does not serve yet, or the next one, milliseconds. Default: not at all. */
  readonly waitMs?: number;
  /** Called when a call begins to wait for a daemon. */
  readonly onWait?: () => void;
}

export interface SnapshotCreateParameters {
  readonly devices?: readonly string[];
  /** Absolute paths, or `memory:`; filled in this order. */
  readonly stores: readonly string[];
  readonly limitBytes: number;
  readonly onOverflow?: OverflowPolicy;
  /** Survives a stop or a power cut; needs persistent trackers and stores on disks. */
  readonly persistent?: boolean;
  /** Images refuse writes. */
  readonly readOnlyImages?: boolean;
  /** Images refuse writes, and their reader may trim over NBD what it has read: it reads as zeros then. */
  readonly releasableImages?: boolean;
}

export interface CbtMap {
  readonly info: CbtInfo;
  /** One byte per block. */
  readonly map: Uint8Array;
}

/**
 * Every method throws a `BlksnapClientError`. Devices may be named by original or front. Paths must be absolute,
 * because the daemon has another working directory.
 */
export class BlksnapClient {
  readonly socketPath: string;
  /** TCP addresses that accept NBD clients. */
  readonly nbd: NbdListeners = new NbdListeners((...call) => this.#call(...call));
  readonly #timeoutMs: number;
  readonly #waiting: Pick<BlksnapClientOptions, "waitMs" | "onWait">;

  constructor(options: BlksnapClientOptions = {}) {
    this.socketPath = options.socketPath ?? socketPath();
    this.#timeoutMs = options.timeoutMs ?? TIMEOUT_DEFAULT_MS;
    const { waitMs, onWait } = options;
    this.#waiting = { ...(waitMs && { waitMs }), ...(onWait && { onWait }) };
  }

  version(options?: CallOptions): Promise<VersionResponse> {
    return sendForJson(this.#call("GET", "/v1/version", options));
  }

  status(options?: CallOptions): Promise<StatusResponse> {
    return sendForJson(this.#call("GET", "/v1/status", options));
  }

  /** The daemon's counters as Prometheus text. */
  async metrics(options?: CallOptions): Promise<string> {
    return (await send(this.#call("GET", "/metrics", options))).toString();
  }

  /** The daemon's description of its API. */
  openapi(options?: CallOptions): Promise<Record<string, unknown>> {
    return sendForJson(this.#call("GET", "/v1/openapi.json", options));
  }

  /**
   * Makes the daemon leave its devices to one started from the program that is on disk now, and waits until that one
   * serves. Users of the devices see a pause, and no error.
   * @throws BlksnapClientError UPGRADE_UNATTENDED, UPGRADE_FAILED
   */
  async daemonUpgrade(options: CallOptions = {}): Promise<DaemonUpgrade> {
    const timeoutMs = options.timeoutMs ?? UPGRADE_TIMEOUT_MS;
    const call = this.#call("POST", "/v1/daemon/upgrade", { ...options, timeoutMs });
    const left = await sendForJson<DaemonUpgradeResponse>(call);
    const isNext = ({ daemon }: StatusResponse): boolean => daemon.pid !== left.pid;
    const { daemon } = await untilAnswer(() => this.status(options), isNext, timeoutMs);
    if (left.next_pid !== null && daemon.pid !== left.next_pid) {
      const next = `daemon ${left.next_pid} of version ${left.next_version} ended`;
      const why = `${next}; daemon ${daemon.pid} of version ${daemon.version} continues`;
      throw new BlksnapClientError("UPGRADE_FAILED", why);
    }
    return {
      from: { pid: left.pid, version: left.version },
      to: { pid: daemon.pid, version: daemon.version },
      started_by: left.started_by,
      pause_ms: daemon.handover?.pid === left.pid ? daemon.handover.pause_ms : null,
    };
  }

  /**
   * Ends the daemon and waits until it has ended. With `keep` fronts and images stay, and their users
   * wait for the next daemon.
   * @throws BlksnapClientError DAEMON_IN_USE
   */
  async daemonStop(
    { keep = false }: { readonly keep?: boolean } = {},
    options: CallOptions = {},
  ): Promise<DaemonStopResponse> {
    const call = this.#call("POST", "/v1/daemon/stop", options, { keep });
    const stopped = await sendForJson<DaemonStopResponse>(call);
    const pidNow = async (): Promise<number> => (await this.status(options)).daemon.pid;
    await untilGone(stopped.pid, pidNow, options.timeoutMs ?? this.#timeoutMs);
    return stopped;
  }

  /** `persistent`: keeps the CBT through stops and power cuts. */
  attach(
    device: string,
    options: CallOptions & AttachRequestOptions = {},
  ): Promise<AttachResponse> {
    const { persistent = false, kind } = options;
    const body = {
      device,
      ...(persistent ? { persistent } : {}),
      ...(kind === undefined ? {} : { kind }),
    };
    return sendForJson(this.#call("POST", "/v1/trackers", options, body));
  }

  /** `forget`: keeps nothing of a persistent tracker, even of one that is not attached. */
  detach(
    device: string,
    options: CallOptions & { readonly forget?: boolean } = {},
  ): Promise<DetachResponse> {
    const parameters = options.forget === true ? { device, forget: "true" } : { device };
    return sendForJson(this.#call("DELETE", query("/v1/trackers", parameters), options));
  }

  /** State of one tracked device, as `status` has it. */
  tracker(device: string, options?: CallOptions): Promise<TrackerStatus> {
    return sendForJson(this.#call("GET", query("/v1/trackers", { device }), options));
  }

  cbtInfo(device: string, options?: CallOptions): Promise<CbtInfo> {
    return sendForJson(this.#call("GET", query("/v1/trackers/cbt", { device }), options));
  }

  /** Part of the frozen CBT map: `blocks` blocks from `firstBlock` on, at most 1 MiB. */
  readCbtMapSlice(
    device: string,
    firstBlock: number,
    blocks: number,
    options?: CallOptions,
  ): Promise<Uint8Array> {
    const slice = { device, first_block: firstBlock, block_count: blocks };
    const path = query("/v1/trackers/cbt/map", slice);
    return send(this.#call("GET", path, options));
  }

  /** The whole frozen CBT map, all of one take; read again if a take comes in between. */
  async readCbtMap(device: string, options?: CallOptions): Promise<CbtMap> {
    let info = await this.cbtInfo(device, options);
    for (let attempt = 0; attempt < MAP_READ_ATTEMPTS_MAX; attempt++) {
      const map = new Uint8Array(info.block_count);
      for (let offset = 0; offset < map.length; offset += CBT_MAP_SLICE_MAX_BYTES) {
        const length = Math.min(CBT_MAP_SLICE_MAX_BYTES, map.length - offset);
        map.set(await this.readCbtMapSlice(device, offset, length, options), offset);
      }
      const after = await this.cbtInfo(device, options);
      const isSame =
        after.generation_id === info.generation_id &&
        after.changes_number === info.changes_number &&
        after.block_count === info.block_count;
      if (isSame) return { info, map };
      info = after;
    }
    const why = `each read of the map of ${device} was overtaken by another take`;
    throw new BlksnapClientError("CBT_GENERATION_CHANGED", why, { hint: "Read it again" });
  }

  /** Marks blocks as changed. Many ranges are sent in several requests, each of which is atomic. */
  async markDirty(
    device: string,
    ranges: readonly ByteRange[],
    options?: CallOptions,
  ): Promise<MarkDirtyResponse> {
    let total: MarkDirtyResponse = { device, ranges: 0 };
    for (let first = 0; first === 0 || first < ranges.length; first += MARK_RANGES_MAX) {
      const body = { device, ranges: ranges.slice(first, first + MARK_RANGES_MAX) };
      const call = this.#call("POST", "/v1/trackers/cbt/dirty", options, body);
      const marked = await sendForJson<MarkDirtyResponse>(call);
      total = { device: marked.device, ranges: total.ranges + marked.ranges };
    }
    return total;
  }

  /** Marks the blocks under a file; if `device` is given, the file must lie on it. */
  markDirtyFile(
    file: string,
    device?: string,
    options?: CallOptions,
  ): Promise<MarkDirtyFileResponse> {
    const body = device === undefined ? { file } : { file, device };
    return sendForJson(this.#call("POST", "/v1/trackers/cbt/dirty_file", options, body));
  }

  /**
   * What changed after snapshot number `since`. With `generation`, fails with CBT_GENERATION_CHANGED if the device
   * has another generation now.
   */
  diff(
    device: string,
    since: number,
    generation?: string,
    options?: CallOptions,
  ): Promise<DiffResponse> {
    const path = query("/v1/trackers/cbt/diff", { device, since, generation });
    return sendForJson(this.#call("GET", path, options));
  }

  /**
   * The same as a stream of any length: extents of one take, in order, from an offset on, and through an upgrade of
   * the daemon. Fails with CBT_GENERATION_CHANGED or CBT_NUMBER_CHANGED if that take is no longer the last one.
   */
  changedExtents(
    device: string,
    since: number,
    options: ChangedExtentsOptions = {},
  ): AsyncGenerator<DiffRange> {
    const { signal, timeoutMs } = options;
    return changedExtents((wanted) => {
      const path = query("/v1/trackers/cbt/diff", { device, since, ...wanted });
      return sendForLines({ ...this.#call("GET", path, { signal, timeoutMs }), inLines: true });
    }, options);
  }

  snapshotInfo(device: string, options?: CallOptions): Promise<SnapshotInfo> {
    return sendForJson(this.#call("GET", query("/v1/trackers/snapshot", { device }), options));
  }

  /**
   * Creates a snapshot, not yet taken. Returns its id, and the devices that were attached for it. Waits as long as
   * the stores make progress: the timeout is for each step. If cancelled, it leaves nothing.
   */
  async snapshotCreate(
    parameters: SnapshotCreateParameters,
    options: CallOptions & {
      readonly onProgress?: (progress: SnapshotCreateProgress) => void;
    } = {},
  ): Promise<SnapshotCreateResponse> {
    const { devices = [], stores, limitBytes, onOverflow, persistent } = parameters;
    const { readOnlyImages, releasableImages } = parameters;
    const body = {
      devices,
      stores,
      limit_bytes: limitBytes,
      on_overflow: onOverflow,
      persistent,
      read_only_images: readOnlyImages,
      releasable_images: releasableImages,
    };
    const call = { ...this.#call("POST", "/v1/snapshots", options, body), inLines: true };
    for await (const line of sendForLines(call)) {
      const error = errorFromAnswer(line);
      if (error !== undefined) throw error;
      const told = parsed<{ progress: SnapshotCreateProgress } | SnapshotCreateResponse>(line);
      if ("id" in told) return told;
      options.onProgress?.(told.progress);
    }
    throw new BlksnapClientError("CONNECTION_LOST", "the answer ended before it was complete");
  }

  async snapshotCollect(options?: CallOptions): Promise<readonly SnapshotSummary[]> {
    const list = await sendForJson<SnapshotList>(this.#call("GET", "/v1/snapshots", options));
    return list.snapshots;
  }

  /** State of one snapshot, as `status` has it. */
  snapshot(id: string, options?: CallOptions): Promise<SnapshotStatus> {
    return sendForJson(this.#call("GET", snapshotPath(id), options));
  }

  snapshotAdd(id: string, device: string, options?: CallOptions): Promise<SnapshotAddResponse> {
    return sendForJson(this.#call("POST", snapshotPath(id, "/devices"), options, { device }));
  }

  /** `requireFreeze`: fails if a file system with data on the devices cannot be frozen. */
  snapshotTake(
    id: string,
    options: CallOptions & { readonly requireFreeze?: boolean } = {},
  ): Promise<SnapshotTakeResponse> {
    const parameters = options.requireFreeze === true ? { require_freeze: "true" } : {};
    const timeoutMs = this.#timeoutMs < TIMEOUT_DEFAULT_MS ? this.#timeoutMs : TAKE_TIMEOUT_MS;
    const path = query(snapshotPath(id, "/take"), parameters);
    return sendForJson(this.#call("POST", path, limited(options, timeoutMs)));
  }

  snapshotDestroy(id: string, options?: CallOptions): Promise<SnapshotId> {
    return sendForJson(this.#call("DELETE", snapshotPath(id), options));
  }

  /**
   * Takes the oldest event that `reader` has not taken, waiting up to `waitMs` for one; undefined if none came. Each
   * reader name has its own queue; calls without a name share one. Throws SNAPSHOT_NOT_FOUND as soon as the snapshot
   * is destroyed.
   */
  async waitEvent(
    id: string,
    waitMs: number,
    options: CallOptions & { readonly reader?: string | undefined } = {},
  ): Promise<SnapshotEvent | undefined> {
    const { reader } = options;
    const path = query(snapshotPath(id, "/events"), { timeout_ms: waitMs, reader });
    const timeoutMs = Math.min(waitMs + WAIT_SLACK_MS, 2 ** 31 - 1);
    const answer = await sendForJson<WaitEventResponse>(
      this.#call("GET", path, limited(options, timeoutMs)),
    );
    return answer.result === "ok" ? answer.event : undefined;
  }

  /** All kept events, the oldest first; reading takes none. */
  async listEvents(id: string, options?: CallOptions): Promise<readonly SnapshotEvent[]> {
    const call = this.#call("GET", snapshotPath(id, "/events/list"), options);
    return (await sendForJson<ListEventsResponse>(call)).events;
  }

  /**
   * Events from sequence number `from` on (0: all kept ones), without taking them out of the queue. Ends when the
   * snapshot is destroyed; leaving the loop closes the connection.
   * @param options `resumeMs`: how long to wait for a daemon that is gone; the stream then continues after the last
   *   event, as after an upgrade
   */
  async *followEvents(
    id: string,
    from = 0,
    options: CallOptions & { readonly resumeMs?: number } = {},
  ): AsyncGenerator<SnapshotEvent> {
    const { resumeMs = 0 } = options;
    let next = from;
    for await (const event of resumed(() => this.#eventsFrom(id, next, options), resumeMs)) {
      next = event.sequence + 1;
      yield event;
    }
  }

  #eventsFrom(id: string, from: number, options: CallOptions): AsyncGenerator<SnapshotEvent> {
    const path = query(snapshotPath(id, "/events/follow"), { from });
    return eventLines(this.#call("GET", path, limited(options, 0)));
  }

  /** Events of the whole daemon: the kept ones and, with `follow`, new ones. */
  daemonEvents(options: CallOptions & DaemonEventsOptions = {}): AsyncGenerator<DaemonEvent> {
    return daemonEvents((wanted) => {
      const path = query("/v1/events", wanted);
      const its = options.follow === true ? limited(options, 0) : options;
      return eventLines(this.#call("GET", path, its));
    }, options);
  }

  #call(method: Call["method"], path: string, options: CallOptions = {}, body?: unknown): Call {
    return {
      socketPath: this.socketPath,
      method,
      path,
      body,
      signal: options.signal,
      timeoutMs: options.timeoutMs ?? this.#timeoutMs,
      ...this.#waiting,
    };
  }
}
