/** Schemas of the operations on one tracked device: attach, detach, CBT, its snapshot. */
import { list, record, recordWithOptional } from "./build.js";
import * as is from "./scalars.js";

/** Whether users mount the front, or it lies under a node that is in use. */
export const attachKind = { type: "string", enum: ["front", "live"] } as const;

export const attachRequest = recordWithOptional(
  { device: is.device },
  {
    persistent: { ...is.flag, description: "keep the CBT across stops and power cuts" },
    kind: {
      ...attachKind,
      description: "default: live if the device is a device-mapper node in use, else front",
    },
  },
);
export const attachResponse = record({
  device: is.text,
  front: is.text,
  already_attached: is.flag,
  persistent: is.flag,
  attach_kind: attachKind,
  live: { ...is.textOrNull, description: "the node that leads to the front; null for kind front" },
});

export const deviceQuery = record({ device: is.device });
export const detachQuery = recordWithOptional(
  { device: is.device },
  {
    forget: {
      ...is.flag,
      description:
        "delete the CBT of a persistent tracker, too, also of one that is not attached: its device is away, " +
        "or another one has its name",
    },
  },
);
export const detachResponse = record({
  device: is.text,
  front: { ...is.text, description: "empty if nothing was attached" },
});

/** Why the CBT began a new generation. */
export const generationReason = {
  type: "string",
  enum: ["first_attach", "capacity_changed", "rollover", "tracking_broken", "foreign_write"],
} as const;

const cbtFields = {
  block_bytes: { ...is.count, description: "of the device, for each byte of the map" },
  capacity_bytes: is.count,
  block_count: is.count,
  generation_id: is.uuid,
  generation_reason: generationReason,
  changes_number: { ...is.count, maximum: 255, description: "number of the last taken snapshot" },
} as const;

/** The CBT of a device, in `status`. */
export const cbtState = record(cbtFields);
/** The response of `cbtinfo`. */
export const cbtInfo = record({ device: is.text, front: is.text, ...cbtFields });

/** Each byte of the map is a snapshot number: 0 never changed, n changed before snapshot n. */
export const cbtMapQuery = record({
  device: is.device,
  first_block: is.count,
  block_count: { type: "integer", minimum: 1, maximum: is.CBT_MAP_SLICE_MAX_BYTES },
});

export const byteRange = record({
  offset_bytes: is.wholeSectors,
  length_bytes: { ...is.wholeSectors, minimum: is.SECTOR_SIZE_BYTES },
});

export const markDirtyRequest = record({
  device: is.device,
  ranges: { type: "array", items: byteRange, minItems: 1, maxItems: is.MARK_RANGES_MAX },
});
export const markDirtyResponse = record({ device: is.text, ranges: is.count });

export const markDirtyFileRequest = recordWithOptional({ file: is.path }, { device: is.device });
export const markDirtyFileResponse = record({
  device: is.text,
  device_number: { type: "string", pattern: "^[0-9]+:[0-9]+$", description: "major:minor" },
  ranges: list(byteRange),
});

export const diffQuery = recordWithOptional(
  {
    device: is.device,
    since: { type: "integer", minimum: 0, maximum: 254, description: "an earlier changes_number" },
  },
  {
    generation: { ...is.uuid, description: "fail unless the CBT still has this generation_id" },
    changes_number: {
      type: "integer",
      minimum: 0,
      maximum: 255,
      description: "fail unless this is still the last taken snapshot's",
    },
    offset_bytes: {
      ...is.wholeSectors,
      description: "list only ranges from this offset on; sums cover everything",
    },
  },
);
export const diffRange = record({
  ...byteRange.properties,
  kind: {
    type: "string",
    enum: ["changed", "discarded"],
    description:
      "discarded: holds no data any more (discard, or write-zeroes that unmaps). Nothing is to be " +
      "read; what an older backup has there is to be zeroed or discarded",
  },
});
const diffFields = {
  device: is.text,
  front: is.text,
  generation_id: is.uuid,
  since: is.count,
  changes_number: is.count,
  block_bytes: is.count,
  capacity_bytes: is.count,
  changed_blocks: { ...is.count, description: "of both kinds" },
  changed_bytes: { ...is.count, description: "of both kinds" },
} as const;
/** The first line of a response in lines. */
export const diffHead = record(diffFields);
/** Each further line. */
export const diffRanges = record({ ranges: list(diffRange) });
export const diffResponse = record({ ...diffFields, ranges: list(diffRange) });

export const snapshotInfo = record({
  device: is.text,
  front: is.text,
  image: { ...is.textOrNull, description: "path of the image's device; null before take" },
  nbd_uri: { ...is.textOrNull, description: "address of the image for NBD clients" },
  error_code: is.errorCode,
  snapshot_id: is.uuidOrNull,
});
