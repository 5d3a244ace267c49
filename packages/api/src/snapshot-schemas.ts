/** Schemas of the operations on snapshots. */
import { list, record, recordWithOptional } from "./build.js";
import * as is from "./scalars.js";

/** What fails when a write's old data finds no space: the snapshot or the write. */
export const overflowPolicy = recordWithOptional(
  { policy: { type: "string", enum: ["break-snapshot", "fail-writes", "block-writes"] } },
  {
    timeout_ms: {
      type: "integer",
      minimum: 1,
      maximum: is.EVENT_TIMEOUT_MAX_MS,
      description: "how long block-writes waits before the snapshot breaks; 30 s if not given",
    },
  },
);

export const snapshotCreateRequest = recordWithOptional(
  {
    devices: { type: "array", items: is.device, maxItems: 1024 },
    stores: { type: "array", items: is.store, minItems: 1, maxItems: is.STORES_MAX },
    limit_bytes: {
      type: "integer",
      minimum: is.SECTOR_SIZE_BYTES,
      maximum: Number.MAX_SAFE_INTEGER,
      description: "limit for all stores together",
    },
  },
  {
    on_overflow: overflowPolicy,
    persistent: { ...is.flag, description: "returns after a stop or a power cut" },
    read_only_images: {
      ...is.flag,
      description: "images refuse writes. Default: not as block devices, but as NBD exports alone",
    },
    releasable_images: {
      ...is.flag,
      description:
        "images refuse writes, and NBD clients may trim: that frees the range, which then reads as zeros",
    },
  },
);
export const snapshotId = record({ id: is.uuid });
export const snapshotCreateResponse = record({
  id: is.uuid,
  attached: {
    ...list(is.text),
    description: "devices that this request attached; to undo it, detach them",
  },
});

/** Precedes the response of a create, for clients that accept lines of JSON. */
export const snapshotCreateProgress = record({
  progress: record({
    store: { ...is.text, description: "which grows" },
    allocated_bytes: { ...is.count, description: "space on the stores" },
    target_bytes: { ...is.count, description: "space that is allocated at the start" },
  }),
});

export const snapshotSummary = record({ id: is.uuid, taken: is.flag, devices: list(is.text) });
export const snapshotList = record({ snapshots: list(snapshotSummary) });

export const snapshotAddRequest = record({ device: is.device });
export const snapshotAddResponse = record({ id: is.uuid, device: is.text, front: is.text });

/** What a take did to a file system with data on its devices. */
export const fileSystemFreeze = record({
  source: { ...is.text, description: "source of the mount; the device if no mount shows it" },
  device_number: { ...is.text, description: "major:minor" },
  type: { ...is.textOrNull, description: "null if it is in use, but not mounted" },
  mount_point: is.textOrNull,
  pid: {
    ...is.countOrNull,
    description:
      "a process that sees this mount: 1 for the host, else one of a container; null for none",
  },
  state: {
    type: "string",
    enum: ["frozen", "synced", "not"],
    description:
      "frozen: at rest at the instant. synced: written back just before, but not held. not: what " +
      "was written last may be missing from the image",
  },
  why: { ...is.textOrNull, description: "why it was not frozen" },
});

export const snapshotTakeQuery = recordWithOptional(
  {},
  { require_freeze: { ...is.flag, description: "fail unless every file system is frozen" } },
);
export const snapshotTakeResponse = record({
  id: is.uuid,
  stall_us: { ...is.count, description: "longest time that a writer was held up" },
  images: list(record({ device: is.text, image: is.text })),
  file_systems: list(fileSystemFreeze),
});
