/** The image of a member: a ublk device beside the front, on the same reactor. */

import type { AreaId, CloseAreaReply } from "@blksnap/data-plane";
import { doubtOf, type FaultPoint, faultPoint } from "@blksnap/data-plane";
import { DeviceMark, type QueueStart, RecoverableDevice, type ServeOptions } from "@blksnap/ublk";
import type { DriverContext } from "../context.js";
import { links, makePartitions, udevMarks } from "../system/device-names.js";
import { AREA_DROP_SPARE_MS } from "../time-limits.js";
import type { Member } from "./member.js";
import type { Snapshot } from "./snapshot.js";

/** Most that one discard of an image may cover. */
const IMAGE_DISCARD_MAX_BYTES = 2 ** 30;

function imageQueue(
  { reactors }: DriverContext,
  { tracker }: Member,
  area: AreaId,
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

/** Makes the image of a member whose area is active. */
export async function openImage(
  context: DriverContext,
  snapshot: Snapshot,
  member: Member,
): Promise<void> {
  const { tracker, area } = member;
  if (area === undefined) throw new Error(`${tracker.device} has no diff area`);
  member.image = await RecoverableDevice.start(context.ublk, {
    mark: DeviceMark.IMAGE,
    owner: context.state.owner,
    params: {
      ...tracker.backing.params,
      // The original may have grown since it was attached, and its image does not follow.
      capacityBytes: tracker.geometry.capacityBytes,
      // Written data is in the store or in its page cache; no flush makes it safer.
      volatileCache: false,
      readOnly: snapshot.readOnlyImages,
      fua: false,
      discardMaxBytes: IMAGE_DISCARD_MAX_BYTES,
      discardGranularityBytes: 2 ** tracker.geometry.chunkShift,
      writeZeroesMaxBytes: 0,
    },
    queueDepth: context.imageDepth,
    above: tracker.front.id,
    maxIoBytes: context.maxIoBytes,
    onNumber: (number) => {
      faultPoint("take.image-added");
      member.imageNumber = number;
      snapshot.save();
      faultPoint("take.image-recorded");
    },
    ...imageQueue(context, member, area.id, "take.image-queue-started"),
  });
  faultPoint("take.image-live");
  await makePartitions(member.image.path, context.logger);
  linkImage(member);
  faultPoint("take.image-linked");
}

/** Resumes the image of an earlier daemon. */
export async function recoverImage(context: DriverContext, member: Member): Promise<void> {
  const { area } = member;
  if (member.imageNumber === undefined || area === undefined) return;
  const queue = imageQueue(context, member, area.id, "recover.image-queue-started");
  member.image = await RecoverableDevice.recover(
    context.ublk,
    member.imageNumber,
    context.state.owner,
    { ...queue, mark: DeviceMark.IMAGE, onBegun: () => faultPoint("recover.image-begun") },
  );
  faultPoint("recover.image-live");
  linkImage(member);
}

/** Ends a member's part in a snapshot: copy-on-write off, image away, map away. */
export async function closeMember(context: DriverContext, member: Member): Promise<void> {
  const { tracker, area } = member;
  if (area === undefined) return;
  const { reactors, logger } = context;
  const of = { tracker: tracker.id, area: area.id };
  // Copy-on-write ends first, and reads of the image with it: then nothing can hold up the rest. What a
  // store or the original does not answer it gives up in time.
  const timeoutMs = context.ioTimeoutMs + AREA_DROP_SPARE_MS;
  await reactors.request(tracker.reactor, { type: "dropArea", ...of }, timeoutMs);
  faultPoint("destroy.area-dropped");
  await closeImage(member);
  faultPoint("destroy.image-stopped");
  const { isLate } = await reactors.request<CloseAreaReply>(tracker.reactor, {
    type: "closeArea",
    ...of,
  });
  if (isLate) {
    member.lateArea = area.id;
    const text =
      "a store or the original does not answer: what it was asked keeps the stores in use";
    logger.warn({ device: tracker.device }, text);
  }
  faultPoint("destroy.area-closed");
  // Before its descriptor is closed: whatever fails from here on, nobody closes it a second time.
  member.area = undefined;
  member.imageNumber = undefined;
  context.state.removeMap(area.map);
  faultPoint("destroy.map-removed");
}

/** Takes the image away; copy-on-write continues. */
export async function closeImage(member: Member): Promise<void> {
  const { image, imageLink } = member;
  if (image === undefined) return;
  links.remove(imageLink, image.path);
  await image.stop();
  member.image = undefined;
  member.imageLink = undefined;
}

function linkImage(member: Member): void {
  if (member.image === undefined) return;
  member.imageLink = links.add(`${member.tracker.device}-image`, member.image.path);
}
