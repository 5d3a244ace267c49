/** Schemas of the daemon's reports about itself: version, status, errors. */
import { list, record } from "./build.js";
import { ERROR_NAMES } from "./errors.js";
import { nbdListener } from "./nbd-schemas.js";
import * as is from "./scalars.js";
import { fileSystemFreeze, overflowPolicy } from "./snapshot-schemas.js";
import { STORE_KIND_NAMES } from "./store-kinds.js";
import { byteRange, cbtState } from "./tracker-schemas.js";

const durationCounts = record({
  buckets: { ...list(is.count), description: "number by bucket of duration" },
  sum_us: { ...is.count, description: "of all" },
});

export const versionResponse = record({
  interface: {
    type: "string",
    pattern: "^[0-9]+(\\.[0-9]+){3}$",
    description: "version of the kernel module's interface that is served",
  },
  daemon: is.text,
  api: { type: "string", const: "v1" },
  node: is.text,
  kernel: is.text,
});

const ioCounters = record({
  reads: is.count,
  read_bytes: is.count,
  writes: is.count,
  write_bytes: is.count,
  discards: is.count,
  discard_bytes: is.count,
  flushes: is.count,
  errors: is.count,
});

/** State of a front under a node that is in use; null for kind front. */
const splice = {
  anyOf: [
    record({
      node: { ...is.text, description: "the users' node, by its present name" },
      state: {
        type: "string",
        enum: ["making", "on", "ending", "lost"],
        description: "lost: the node does not lead to the front any more, and writes were missed",
      },
      why: { ...is.textOrNull, description: "why it is lost; what to do is detach and attach" },
    }),
    { type: "null" },
  ],
} as const;

export const trackerStatus = record({
  device: is.text,
  device_number: is.textOrNull,
  front: is.text,
  front_live: { ...is.flag, description: "false: another program has ended it; detach the device" },
  attach_kind: { type: "string", enum: ["front", "live"] },
  splice,
  capacity_bytes: { ...is.count, description: "size of the front" },
  original_capacity_bytes: { ...is.count, description: "present size of the original" },
  capacity_why: {
    ...is.textOrNull,
    description: "why these two differ, and what to do; null also while the front is about to grow",
  },
  logical_block_bytes: is.count,
  read_only: is.flag,
  zero_copy: { ...is.flag, description: "requests use the users' pages, without a copy" },
  reactor: is.count,
  cbt: cbtState,
  snapshot_id: is.uuidOrNull,
  image: is.textOrNull,
  nbd_uri: {
    ...is.textOrNull,
    description:
      "address of the front for NBD clients; read-only if the front is also a block device",
  },
  error_code: is.errorCode,
  persistence: record({
    state: {
      type: "string",
      enum: ["off", "on", "failed"],
      description: "whether the CBT survives a stop of the daemon and a power cut",
    },
    why: { ...is.textOrNull, description: "why it failed, or why the generation is new" },
  }),
  kept_discard_bytes: {
    ...is.count,
    description: "discarded under a snapshot; sent to the original when no snapshot is left",
  },
  io: ioCounters,
  durations: record({
    bounds_us: { ...list(is.count), description: "upper bounds of all buckets but the last" },
    copy: {
      ...durationCounts,
      description: "copies of old data, until stored and recorded",
    },
    take_stall: { ...durationCounts, description: "time that writes waited, at each take" },
  }),
});

export const snapshotDeviceStatus = record({
  device: is.text,
  front: is.text,
  image: is.textOrNull,
  nbd_uri: { ...is.textOrNull, description: "address of the image for NBD clients" },
  error_code: is.errorCode,
  chunk_bytes: is.count,
  chunks_used: is.count,
  copied_bytes: { ...is.count, description: "old data saved so far" },
  lost_bytes: { ...is.count, description: "old data that could not be saved; reads as EIO" },
  lost_ranges: { ...list(byteRange), description: "the first of the lost ranges" },
  lost_ranges_total: is.count,
  blocked_writes: { ...is.count, description: "writes that waited for space for old data" },
  blocked_writes_now: { ...is.count, description: "writes that wait for space now" },
  refused_writes: { ...is.count, description: "writes that failed for lack of space" },
  late_io: {
    ...is.count,
    description: "copies and parts of image requests that a store did not answer in time",
  },
  image_io: ioCounters,
});

const grantedBytes = {
  ...is.count,
  description: "granted to devices: used, or reserved for their next chunks",
};
const usedBytes = { ...is.count, description: "used by chunks" };

export const storeStatus = record({
  path: is.text,
  kind: { type: "string", enum: STORE_KIND_NAMES },
  hung: { ...is.flag, description: "did not answer in time, and gets no I/O until it does" },
  allocated_bytes: { ...is.count, description: "space on the store" },
  granted_bytes: grantedBytes,
  used_bytes: usedBytes,
});

export const snapshotStatus = record({
  id: is.uuid,
  taken: is.flag,
  created_at: is.wallTime,
  taken_at: is.wallTimeOrNull,
  stall_us: is.countOrNull,
  limit_bytes: is.count,
  allocated_bytes: { ...is.count, description: "space on the stores" },
  granted_bytes: grantedBytes,
  used_bytes: usedBytes,
  fill_bytes_per_s: { ...is.countOrNull, description: "recent rate; null while unknown" },
  full_in_ms: { ...is.countOrNull, description: "at that rate; null if it is not filling" },
  on_overflow: overflowPolicy,
  persistent: { ...is.flag, description: "returns after a stop or a power cut" },
  read_only_images: is.flag,
  releasable_images: { ...is.flag, description: "NBD clients may free parts of the images" },
  resumed: {
    ...is.flag,
    description: "an earlier daemon took it: image_io does not count from the start",
  },
  file_systems: { ...list(fileSystemFreeze), description: "what the take did with file systems" },
  events_pending: is.count,
  devices: list(snapshotDeviceStatus),
  stores: list(storeStatus),
});

/** State of a reactor. */
export const reactorStatus = record({
  index: is.count,
  devices: is.count,
  stalled_ms: { ...is.count, description: "how long it has been stalled; 0 while it runs" },
  stalls: { ...is.count, description: "how often it has stalled since the daemon was started" },
});

/** The daemon that handed its devices over to this one; null after a crash or a first start. */
const handover = {
  anyOf: [
    record({
      pid: is.count,
      version: is.text,
      pause_ms: { ...is.count, description: "for how long no daemon served the devices" },
    }),
    { type: "null" },
  ],
} as const;

/** A configured device that is not attached. */
const missingDevice = record({
  device: is.text,
  from: { ...is.text, description: "file and line" },
  waited_for: { ...is.flag, description: "false: it was given up" },
  code: { ...is.textOrNull, description: "name of the error" },
  why: is.text,
});

/** State of the daemon's configuration files. */
const configuration = record({
  mistakes: {
    ...list(is.text),
    description:
      "mistakes in the files; while there are any, the earlier configuration stays in force",
  },
  missing: list(missingDevice),
});

/** A front of an earlier daemon that this one could not resume yet; it retries. */
export const waitingFront = record({
  device: { ...is.text, description: "its original" },
  front: { ...is.text, description: "/dev/ublkbN, whose users wait; or the address of an export" },
  why: is.text,
});

/**
 * A volume that was attached live until its node got another table. The daemon attaches it again as soon as possible,
 * unless it has given up.
 */
export const untrackedVolume = record({
  device: { ...is.text, description: "the name that it was attached by" },
  node: { ...is.text, description: "/dev/mapper/NAME of its node" },
  since: { ...is.wallTime, description: "when it was detached" },
  why: { ...is.textOrNull, description: "of the last attempt; null until one has failed" },
  given_up: {
    ...is.flag,
    description: "several daemons in a row ended while attaching it: only users attach it again",
  },
});

export const statusResponse = record({
  daemon: record({
    version: is.text,
    pid: is.count,
    started_at: is.wallTime,
    uptime_ms: is.count,
    kernel: is.text,
    reactors: is.count,
    handover,
    configuration,
  }),
  reactors: list(reactorStatus),
  trackers: list(trackerStatus),
  waiting: list(waitingFront),
  untracked: {
    ...list(untrackedVolume),
    description:
      "volumes of a live attach that are to be attached again; until then nothing tracks them",
  },
  snapshots: list(snapshotStatus),
  nbd_listeners: {
    ...list(nbdListener),
    description: "where NBD clients are accepted by TCP, besides nbd.sock",
  },
});

export const errorName = {
  type: "string",
  enum: ERROR_NAMES,
  description: "stable; later daemons may add codes",
} as const;
export const errorBody = record({
  name: errorName,
  errno: { ...is.countOrNull, description: "positive errno, where there is one" },
  errno_name: is.textOrNull,
  message: { ...is.text, description: "what failed and why" },
  hint: { ...is.text, description: "what to do" },
});
export const errorResponse = record({ error: errorBody });
