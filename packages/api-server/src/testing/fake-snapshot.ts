/** One snapshot of the fake driver, and its reports. */
import type { SnapshotCreateOptions, SnapshotStatus } from "@blksnap/api";
import { storeKindByWord } from "@blksnap/api";
import type { FakeEvents } from "./fake-events.js";
import { type FakeTracker, noIo } from "./fake-tracker.js";

export interface FakeSnapshot {
  readonly id: string;
  readonly options: SnapshotCreateOptions;
  readonly createdAt: string;
  readonly members: FakeTracker[];
  readonly events: FakeEvents;
  takenAt: string | null;
}

export const STALL_US = 125;

/** The first device has a file system that can be frozen, the second one that cannot. */
export function fileSystems({ members }: FakeSnapshot): SnapshotStatus["file_systems"] {
  return members.slice(0, 2).map(({ front }, index) => ({
    source: front,
    device_number: `259:${index}`,
    type: index === 0 ? "ext4" : "vfat",
    mount_point: `/mnt/${index}`,
    pid: 1,
    state: index === 0 ? "frozen" : "synced",
    why: index === 0 ? null : "EOPNOTSUPP",
  }));
}

export function snapshotStatus(snapshot: FakeSnapshot): SnapshotStatus {
  const { id, options, members, createdAt, takenAt, events } = snapshot;
  return {
    id,
    taken: takenAt !== null,
    created_at: createdAt,
    taken_at: takenAt,
    stall_us: takenAt === null ? null : STALL_US,
    limit_bytes: options.limitBytes,
    allocated_bytes: 0,
    granted_bytes: Math.floor(options.limitBytes / 2),
    used_bytes: Math.floor(options.limitBytes / 4),
    fill_bytes_per_s: null,
    full_in_ms: null,
    persistent: false,
    read_only_images: options.releasableImages || (options.readOnlyImages ?? false),
    releasable_images: options.releasableImages ?? false,
    resumed: false,
    file_systems: takenAt === null ? [] : fileSystems(snapshot),
    on_overflow: options.onOverflow ?? { policy: "break-snapshot" },
    events_pending: events.pending,
    devices: members.map((tracker) => ({
      device: tracker.device,
      front: tracker.front,
      image: tracker.image,
      nbd_uri: null,
      error_code: tracker.errorCode,
      chunk_bytes: 262_144,
      chunks_used: 0,
      copied_bytes: 0,
      lost_bytes: 0,
      lost_ranges: [],
      lost_ranges_total: 0,
      blocked_writes: 0,
      blocked_writes_now: 0,
      refused_writes: 0,
      late_io: 0,
      image_io: noIo(),
    })),
    stores: options.stores.map((path) => ({
      path,
      kind: storeKindByWord(path) ?? ("directory" as const),
      hung: false,
      allocated_bytes: 0,
      granted_bytes: 0,
      used_bytes: 0,
    })),
  };
}
