/** An image: a device or an export beside a front, on the same reactor. */

import { type AreaId, doubtOf, type FaultPoint, faultPoint } from "@blksnap/data-plane";
import type { DeviceParams } from "@blksnap/ublk";
import type { DriverContext } from "../context.js";
import type { ServedDevice, Serving } from "../frontend/frontend.js";
import { IMAGE_DISCARD_MAX_BYTES, imageName } from "../nbd-exports.js";
import { servedParams } from "../tracker/geometry.js";
import type { Tracker } from "../tracker/tracker.js";

/** What an image shows. */
export interface Imaged {
  /** Id of the snapshot. */
  readonly snapshot: string;
  readonly tracker: Tracker;
  /** The active area that it shows. */
  readonly area: AreaId;
  /** Called when a reactor serves it: ends of queues that were reported before are those of earlier images. */
  readonly onServed: () => void;
}

/** What clients of an image may do besides reading. */
export interface ImageAccess {
  readonly readOnly: boolean;
  /** Its reader may discard what it has read, over NBD, although the image is read-only. */
  readonly releasable: boolean;
}

export interface ImageOptions extends ImageAccess {
  /** Called with the device's number before the device lives. */
  readonly onNumber: (number: number | null) => void;
}

function imageQueue(
  { reactors }: DriverContext,
  { snapshot, tracker, area, onServed }: Imaged,
  started: FaultPoint,
): Serving {
  const of = { tracker: tracker.id, area };
  return {
    startQueue: async (queue) => {
      await reactors.request(tracker.reactor, { type: "openImage", queue, ...of });
      onServed();
      faultPoint(started);
    },
    queueEnded: () => reactors.request(tracker.reactor, { type: "awaitImageEnd", ...of }),
    doubtOf,
    role: "image",
    isHidden: true,
    original: "",
    exportName: imageName(snapshot, tracker.device),
    connections: () =>
      reactors.request<number>(tracker.reactor, { type: "countConnections", ...of }),
  };
}

function imageParams(
  { frontend }: DriverContext,
  { backing, geometry }: Tracker,
  { readOnly, releasable }: ImageAccess,
): DeviceParams {
  // A block device is released through its NBD export: newer kernels pass a file system's discards to a read-only
  // device.
  const takesDiscards = !readOnly || (releasable && frontend.kind === "nbd");
  return {
    ...servedParams(backing, geometry),
    // Written data is in the store or its page cache; a flush would make it no safer.
    volatileCache: false,
    readOnly,
    fua: false,
    discardMaxBytes: takesDiscards ? IMAGE_DISCARD_MAX_BYTES : 0,
    discardGranularityBytes: 2 ** geometry.chunkShift,
    writeZeroesMaxBytes: 0,
  };
}

export function startImage(
  context: DriverContext,
  imaged: Imaged,
  { onNumber, ...access }: ImageOptions,
): Promise<ServedDevice> {
  const { tracker } = imaged;
  return context.frontend.start({
    params: imageParams(context, tracker, access),
    queueDepth: context.imageDepth,
    above: tracker.front.id,
    hasPartitions: true,
    maxIoBytes: context.maxIoBytes,
    onNumber: ({ id }) => onNumber(id),
    ...imageQueue(context, imaged, "take.image-queue-started"),
  });
}

/** Resumes the image of an earlier daemon. @param number that of its device */
export function resumeImage(
  context: DriverContext,
  imaged: Imaged,
  number: number,
  access: ImageAccess,
): Promise<ServedDevice> {
  return context.frontend.resume(number, {
    params: imageParams(context, imaged.tracker, access),
    queueDepth: context.imageDepth,
    maxIoBytes: context.maxIoBytes,
    ...imageQueue(context, imaged, "recover.image-queue-started"),
    onBegun: () => faultPoint("recover.image-begun"),
  });
}
