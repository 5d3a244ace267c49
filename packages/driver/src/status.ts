/** The driver's reports: status, CBT information, metrics. */
import { release } from "node:os";
import {
  type CbtInfo as CbtInfoAnswer,
  type CbtState,
  type GenerationReason,
  type SnapshotDeviceStatus,
  type SnapshotInfo,
  type SnapshotStatus,
  type SnapshotSummary,
  type StatusResponse,
  storeKindByWord,
  type TrackerStatus,
  type VersionResponse,
} from "@blksnap/api";
import {
  type DeviceCounters,
  type DeviceDurations,
  type DeviceIoCounters,
  type DeviceReader,
  DURATION_BOUNDS_US,
  type DurationCounts,
  type ReactorPool,
} from "@blksnap/data-plane";
import { type DiffStorageStats, slotStore } from "@blksnap/diff-storage";
import { type CbtInfo, CbtReason } from "@blksnap/engine";
import { type Splice, uuidText } from "@blksnap/linux-block";
import type { Handover } from "./handover.js";
import type { NbdExports } from "./nbd-exports.js";
import type { WaitingFront } from "./recovery/late-recovery.js";
import { hasLost, type Member } from "./snapshot/member.js";
import type { Snapshot } from "./snapshot/snapshot.js";
import { type GrowthWatch, sizeWhy } from "./tracker/growth-watch.js";
import { type Away, isGivenUp } from "./tracker/live-returns.js";
import type { Tracker } from "./tracker/tracker.js";
import { DAEMON_VERSION, INTERFACE_VERSION } from "./version.js";

const REASON_NAMES: Readonly<Record<number, GenerationReason>> = {
  [CbtReason.ATTACHED]: "first_attach",
  [CbtReason.CAPACITY_CHANGED]: "capacity_changed",
  [CbtReason.ROLLOVER]: "rollover",
  [CbtReason.UNCLEAN]: "tracking_broken",
  [CbtReason.CORRUPTED]: "tracking_broken",
  [CbtReason.FOREIGN_WRITE]: "foreign_write",
  [CbtReason.REQUESTED]: "tracking_broken",
};

/** For a snapshot that is being destroyed. */
const NO_STORAGE: DiffStorageStats = {
  slotBytes: 0,
  capacityBytes: 0,
  allocatedBytes: 0,
  freeBytes: 0,
  limitBytes: undefined,
  fillBytesPerSecond: 0,
  secondsToFull: undefined,
  lowSpace: false,
  waiting: 0,
  stores: [],
};

function cbtState(info: CbtInfo): CbtState {
  return {
    block_bytes: info.blockBytes,
    capacity_bytes: info.capacityBytes,
    block_count: info.blockCount,
    generation_id: uuidText(info.generation),
    generation_reason: REASON_NAMES[info.reason] ?? "tracking_broken",
    changes_number: info.changesNumber,
  };
}

/** @param tracker one that misses no writes */
export function cbtInfo({ device, front, cbt }: Tracker): CbtInfoAnswer {
  return { device, front: front.path, ...cbtState(cbt.info()) };
}

function ioStatus(io: DeviceIoCounters): TrackerStatus["io"] {
  return {
    reads: io.reads,
    read_bytes: io.readBytes,
    writes: io.writes,
    write_bytes: io.writeBytes,
    discards: io.discards,
    discard_bytes: io.discardBytes,
    flushes: io.flushes,
    errors: io.errors,
  };
}

function durationStatus(of: DeviceDurations): TrackerStatus["durations"] {
  const counts = ({ buckets, sumUs }: DurationCounts) => ({
    buckets: [...buckets],
    sum_us: Math.round(sumUs),
  });
  return {
    bounds_us: [...DURATION_BOUNDS_US],
    copy: counts(of.copy),
    take_stall: counts(of.takeStall),
  };
}

type Configuration = StatusResponse["daemon"]["configuration"];
const NO_CONFIGURATION: Configuration = { mistakes: [], missing: [] };

export interface StatusSource {
  readonly startedAt: Date;
  readonly handover: Handover | null;
  readonly configuration: Configuration | undefined;
  readonly reactors: ReactorPool;
  readonly devices: DeviceReader;
  readonly trackers: Iterable<Tracker>;
  readonly waiting: readonly WaitingFront[];
  readonly away: readonly Away[];
  readonly snapshots: Iterable<Snapshot>;
  readonly snapshotOf: (tracker: Tracker) => Snapshot | undefined;
  readonly growth: Pick<GrowthWatch, "whyOf">;
  readonly exports: NbdExports;
  /** The name of a recorded front. */
  readonly nameOf: (front: number | null) => string;
}

type TrackerSource = Pick<StatusSource, "devices" | "exports" | "growth" | "snapshotOf">;

/** Reads what the main thread knows first: while the reactor is asked, the tracker may end. */
export async function trackerStatus(
  { devices, exports, growth, snapshotOf }: TrackerSource,
  tracker: Tracker,
): Promise<TrackerStatus> {
  const { params } = tracker.backing;
  const snapshot = snapshotOf(tracker);
  const known = {
    device: tracker.device,
    device_number: tracker.deviceNumber,
    front: tracker.front.path,
    front_live: tracker.front.isLive,
    attach_kind: tracker.splice === undefined ? ("front" as const) : ("live" as const),
    splice: spliceStatus(tracker.splice),
    capacity_bytes: tracker.front.capacityBytes,
    logical_block_bytes: params.logicalBlockBytes,
    read_only: params.readOnly,
    zero_copy: tracker.front.hasZeroCopy,
    reactor: tracker.reactor,
    cbt: cbtState(tracker.cbt.info()),
    snapshot_id: snapshot?.id ?? null,
    image: imagePath(snapshot?.members.get(tracker.id)),
    nbd_uri: exports.frontUri(tracker),
    error_code: errorCodeOf(tracker, snapshot?.members.get(tracker.id)),
    persistence: tracker.persistence,
  };
  const [counters, originalBytes] = await Promise.all([
    devices.counters(tracker),
    tracker.presentCapacityBytes(),
  ]);
  const { front, keptDiscardBytes, durations } = counters;
  return {
    ...known,
    original_capacity_bytes: originalBytes,
    capacity_why: sizeWhy(tracker, originalBytes, snapshot, growth.whyOf(tracker)),
    kept_discard_bytes: keptDiscardBytes,
    io: ioStatus(front),
    durations: durationStatus(durations),
  };
}

export function snapshotInfo(
  tracker: Tracker,
  snapshot: Snapshot | undefined,
  exports: NbdExports,
): SnapshotInfo {
  return {
    device: tracker.device,
    front: tracker.front.path,
    image: imagePath(snapshot?.members.get(tracker.id)),
    nbd_uri: exports.imageUri(snapshot, tracker),
    error_code: errorCodeOf(tracker, snapshot?.members.get(tracker.id)),
    snapshot_id: snapshot?.id ?? null,
  };
}

function spliceStatus(splice: Splice | undefined): TrackerStatus["splice"] {
  if (splice === undefined) return null;
  const { path, state, why = null } = splice;
  return { node: path, state, why };
}

/** While a snapshot is taken, the tracker still has the loss of the previous one. */
function errorCodeOf({ loss }: Tracker, member: Member | undefined): number {
  return member?.area === undefined || hasLost(member) ? loss.errorCode : 0;
}

/** Of an existing image: the number of a former one may belong to another device. */
function imagePath(member: Member | undefined): string | null {
  const image = member?.image;
  return image?.isLive === true ? image.path : null;
}

async function memberStatus(
  devices: DeviceReader,
  member: Member,
  counters: DeviceCounters,
  nbdUri: string | null,
): Promise<SnapshotDeviceStatus> {
  const { tracker } = member;
  const { id: area, lostRanges } = counters.area;
  const lost = area === null || lostRanges === 0 ? [] : await devices.lostRanges(tracker, area);
  return {
    device: tracker.device,
    front: tracker.front.path,
    image: imagePath(member),
    nbd_uri: nbdUri,
    error_code: errorCodeOf(tracker, member),
    chunk_bytes: 2 ** tracker.geometry.chunkShift,
    chunks_used: counters.area.slotsUsed,
    copied_bytes: counters.area.copiedBytes,
    lost_bytes: counters.area.lostBytes,
    lost_ranges: lost.map((range) => ({
      offset_bytes: range.offsetBytes,
      length_bytes: range.lengthBytes,
    })),
    lost_ranges_total: counters.area.lostRanges,
    blocked_writes: counters.area.blockedWrites,
    blocked_writes_now: counters.area.blockedNow,
    refused_writes: counters.area.refusedWrites,
    late_io: counters.area.lateIo,
    image_io: ioStatus(counters.image),
  };
}

/** Unused slots on the reactors, by store. */
function spareSlots(counters: readonly DeviceCounters[], stores: number): number[] {
  const spare = new Array<number>(stores).fill(0);
  for (const { area } of counters) {
    for (let i = 0; i < area.spareExtents.length; i += 2) {
      spare[slotStore(area.spareExtents[i])] += area.spareExtents[i + 1];
    }
  }
  return spare;
}

/** A rate or a forecast as an integer; null if it is unknown, or not finite. */
function wholeOrNull(value: number | null | undefined, factor = 1): number | null {
  const whole = Math.round((value ?? Number.NaN) * factor);
  return Number.isSafeInteger(whole) ? whole : null;
}

export async function snapshotStatus(
  devices: DeviceReader,
  snapshot: Snapshot,
  exports: NbdExports,
): Promise<SnapshotStatus> {
  const members = [...snapshot.members.values()];
  // A reactor answers after it has received all slots granted so far.
  const stats = snapshot.hasStorage ? snapshot.storage.stats() : NO_STORAGE;
  const counters = await Promise.all(members.map(({ tracker }) => devices.counters(tracker)));
  const spare = spareSlots(counters, stats.stores.length);
  const stores = stats.stores.map((store, index) => ({
    path: snapshot.stores[index].path,
    kind: storeKindByWord(snapshot.stores[index].path) ?? store.kind,
    hung: snapshot.hungStores.isHung(index),
    allocated_bytes: store.capacityBytes,
    granted_bytes: store.allocatedBytes,
    used_bytes: store.allocatedBytes - spare[index] * stats.slotBytes,
  }));
  const used_bytes = stores.reduce((sum, store) => sum + store.used_bytes, 0);
  const fill_bytes_per_s = wholeOrNull(stats.fillBytesPerSecond);
  // Devices get slots in stock: that alone fills nothing.
  const isFilling = used_bytes > 0 && fill_bytes_per_s !== 0;
  return {
    id: snapshot.id,
    taken: snapshot.state === "taken",
    created_at: snapshot.createdAt,
    taken_at: snapshot.takenAt,
    stall_us: snapshot.stallUs,
    limit_bytes: snapshot.limitBytes,
    allocated_bytes: stats.capacityBytes,
    granted_bytes: stats.allocatedBytes,
    used_bytes,
    fill_bytes_per_s,
    full_in_ms: isFilling ? wholeOrNull(stats.secondsToFull, 1000) : null,
    on_overflow: snapshot.onOverflow,
    persistent: snapshot.persistence.isOn,
    read_only_images: snapshot.readOnlyImages,
    releasable_images: snapshot.releasableImages,
    resumed: snapshot.isResumed,
    file_systems: [...snapshot.fileSystems],
    events_pending: snapshot.events.pendingCount,
    devices: await Promise.all(
      members.map((member, index) => {
        const uri = exports.imageUri(snapshot, member.tracker);
        return memberStatus(devices, member, counters[index], uri);
      }),
    ),
    stores,
  };
}

export function snapshotSummary({ id, state, members }: Snapshot): SnapshotSummary {
  const devices = [...members.values()].map(({ tracker }) => tracker.device);
  return { id, taken: state === "taken", devices };
}

export function driverVersion(): VersionResponse {
  return {
    interface: INTERFACE_VERSION,
    daemon: DAEMON_VERSION,
    api: "v1",
    node: process.version,
    kernel: release(),
  };
}

export async function driverStatus(source: StatusSource): Promise<StatusResponse> {
  const trackers = [...source.trackers].filter(({ isGone }) => !isGone);
  const snapshots = [...source.snapshots];
  return {
    daemon: {
      version: DAEMON_VERSION,
      pid: process.pid,
      started_at: source.startedAt.toISOString(),
      uptime_ms: Date.now() - source.startedAt.getTime(),
      kernel: release(),
      reactors: source.reactors.count,
      handover: handoverStatus(source.handover),
      configuration: withoutAttached(source.configuration ?? NO_CONFIGURATION, trackers),
    },
    reactors: source.reactors.states.map(({ index, devices, stalledMs, stalls }) => ({
      index,
      devices,
      stalled_ms: stalledMs,
      stalls,
    })),
    trackers: await Promise.all(trackers.map((tracker) => trackerStatus(source, tracker))),
    waiting: source.waiting.map(({ record, why }) => ({
      device: record.device,
      front: source.nameOf(record.front),
      why,
    })),
    untracked: source.away.map((away) => ({
      device: away.device,
      node: away.splice.path,
      since: away.since,
      why: away.why,
      given_up: isGivenUp(away),
    })),
    snapshots: await Promise.all(
      snapshots.map((snapshot) => snapshotStatus(source.devices, snapshot, source.exports)),
    ),
    nbd_listeners: source.exports.listeners(),
  };
}

/** A volume that was given up may have been attached by hand since. */
function withoutAttached(found: Configuration, trackers: readonly Tracker[]): Configuration {
  const attached = new Set(trackers.map(({ device }) => device));
  return { ...found, missing: found.missing.filter(({ device }) => !attached.has(device)) };
}

function handoverStatus(handover: Handover | null): StatusResponse["daemon"]["handover"] {
  if (handover === null) return null;
  return { pid: handover.pid, version: handover.version, pause_ms: handover.pauseMs };
}
