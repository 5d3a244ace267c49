/** An image: a ublk device beside a front, on the same reactor. */

import { type AreaId, doubtOf, type FaultPoint, faultPoint } from "@blksnap/data-plane";
import { DeviceMark, type QueueStart, RecoverableDevice, type ServeOptions } from "@blksnap/ublk";
import type { DriverContext } from "../context.js";
import { links, udevMarks } from "../system/device-names.js";
import type { Tracker } from "../tracker/tracker.js";

/** Most that one discard of an image may cover. */
const IMAGE_DISCARD_MAX_BYTES = 2 ** 30;

/** What an image shows. */
export interface Imaged {
  readonly tracker: Tracker;
  /** The id of an area that is active. */
  readonly area: AreaId;
}

export interface ImageOptions {
  readonly readOnly: boolean;
  /** Told the device's number before it lives. */
  readonly onNumber: (number: number) => void;
}

function imageQueue(
  { reactors }: DriverContext,
  { tracker, area }: Imaged,
  started: FaultPoint,
): ServeOptions {
  const of = { tracker: tracker.id, area };
  return {
    startQueue: async (queue: QueueStart) => {
      await reactors.request(tracker.reactor, { type: "openImage", queue, ...of });
      faultPoint(started);
    },
    queueEnded: () => reactors.request(tracker.reactor, { type: "awaitImageEnd", ...of }),
    doubtOf,
    onNumberTaken: (id) => udevMarks.add("images", `ublkb${id}`),
    onNumberFreed: (id) => udevMarks.remove(`ublkb${id}`),
  };
}

export function startImage(
  context: DriverContext,
  imaged: Imaged,
  { readOnly, onNumber }: ImageOptions,
): Promise<RecoverableDevice> {
  const { tracker } = imaged;
  return RecoverableDevice.start(context.ublk, {
    mark: DeviceMark.IMAGE,
    owner: context.state.owner,
    params: {
      ...tracker.backing.params,
      // The original may have grown since it was attached, and its image does not follow.
      capacityBytes: tracker.geometry.capacityBytes,
      // Written data is in the store or in its page cache; no flush makes it safer.
      volatileCache: false,
      readOnly,
      fua: false,
      discardMaxBytes: IMAGE_DISCARD_MAX_BYTES,
      discardGranularityBytes: 2 ** tracker.geometry.chunkShift,
      writeZeroesMaxBytes: 0,
    },
    queueDepth: context.imageDepth,
    above: tracker.front.id,
    maxIoBytes: context.maxIoBytes,
    onNumber,
    ...imageQueue(context, imaged, "take.image-queue-started"),
  });
}

/** Resumes the image of an earlier daemon. @param number that of its device */
export function resumeImage(
  context: DriverContext,
  imaged: Imaged,
  number: number,
): Promise<RecoverableDevice> {
  return RecoverableDevice.recover(context.ublk, number, context.state.owner, {
    ...imageQueue(context, imaged, "recover.image-queue-started"),
    mark: DeviceMark.IMAGE,
    onBegun: () => faultPoint("recover.image-begun"),
  });
}

/** Names the image after its device. Answers the link, where there is one. */
export function linkImage({ device }: Tracker, { path }: RecoverableDevice): string | undefined {
  return links.add(`${device}-image`, path);
}
