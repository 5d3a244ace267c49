/**
 * A device's part in a snapshot: its area, its image, its journal.
 *
 * ```
 *   in the snapshot ─ take ─▶ area ─ openImage ──▶ area and image ─ closeMember ─▶ in the snapshot
 *                    crash ─▶ area ─ recoverImage ────▲ │
 *                                                       └─ closeImage ─▶ area
 * ```
 */
import { type AreaId, type CloseAreaReply, faultPoint } from "@blksnap/data-plane";
import type { DriverContext } from "../context.js";
import type { ServedDevice } from "../frontend/frontend.js";
import type { AreaJournalFile } from "../records/area-journal-file.js";
import type { MapFile } from "../records/state-directory.js";
import { linkImage } from "../system/device-names.js";
import { AREA_DROP_SPARE_MS } from "../time-limits.js";
import type { Tracker } from "../tracker/tracker.js";
import { noteImageEnd, type WithEndingImages } from "./ended-image.js";
import { type ImageAccess, type Imaged, resumeImage, startImage } from "./image.js";

/** A diff area, as the main thread knows it. */
export interface MemberArea {
  readonly id: AreaId;
  readonly map: MapFile;
}

/** A device of a snapshot. */
export interface Member {
  readonly tracker: Tracker;
  /** Defined from take on. */
  area: MemberArea | undefined;
  /** Number of the image's device; known before the image lives. */
  imageNumber: number | undefined;
  image: ServedDevice | undefined;
  /** The queue of the image has ended while the image was being started. */
  hasEarlyEnd: boolean;
  imageLink: string | undefined;
  /** The area's journal, in a persistent snapshot. */
  journal: AreaJournalFile | undefined;
  /** Areas that are closed, or being closed, and may have I/O that a store has not answered. */
  readonly lateAreas: Set<AreaId>;
}

/**
 * Whether the member's area has lost old data. An older daemon did not record which area had: then it is the present
 * one.
 */
export function hasLost({
  tracker: { loss },
  area,
}: {
  readonly tracker: Pick<Tracker, "loss">;
  readonly area: Pick<MemberArea, "id"> | undefined;
}): boolean {
  return area !== undefined && loss.errorCode !== 0 && (loss.area ?? area.id) === area.id;
}

interface WithImages extends WithEndingImages {
  readonly readOnlyImages: boolean;
  readonly releasableImages: boolean;
  save(): void;
}

function accessTo(snapshot: WithImages): ImageAccess {
  return { readOnly: snapshot.readOnlyImages, releasable: snapshot.releasableImages };
}

function imagedOf({ id: snapshot }: WithImages, member: Member, { id: area }: MemberArea): Imaged {
  const onServed = (): void => {
    member.hasEarlyEnd = false;
  };
  return { snapshot, tracker: member.tracker, area, onServed };
}

/** Makes the image of a member whose area is active. @param snapshot is saved when the image has a number */
export async function openImage(
  context: DriverContext,
  snapshot: WithImages,
  member: Member,
): Promise<void> {
  const { tracker, area } = member;
  if (area === undefined) throw new Error(`${tracker.device} has no diff area`);
  const imaged = imagedOf(snapshot, member, area);
  member.image = await startImage(context, imaged, {
    ...accessTo(snapshot),
    onNumber: (number) => {
      faultPoint("take.image-added");
      member.imageNumber = number ?? undefined;
      snapshot.save();
      faultPoint("take.image-recorded");
    },
  });
  faultPoint("take.image-live");
  nameImage(context, snapshot, member);
  faultPoint("take.image-linked");
}

/** Resumes the image of an earlier daemon. */
export async function recoverImage(
  context: DriverContext,
  taken: WithImages,
  member: Member,
): Promise<void> {
  const { area, imageNumber } = member;
  if (imageNumber === undefined || area === undefined) return;
  const imaged = imagedOf(taken, member, area);
  member.image = await resumeImage(context, imaged, imageNumber, accessTo(taken));
  faultPoint("recover.image-live");
  nameImage(context, taken, member);
}

/** Unless it has ended: its number may be another device's, to which the name would lead. */
function nameImage(
  { frontend, logger }: DriverContext,
  snapshot: WithEndingImages,
  member: Member,
): void {
  const { tracker, image, hasEarlyEnd } = member;
  if (hasEarlyEnd) noteImageEnd(snapshot, tracker, logger);
  if (image?.isLive !== true) return;
  const { device } = tracker;
  member.imageLink = linkImage(frontend, { snapshot: snapshot.id, device }, image.path);
}

/** Ends a member's part in a snapshot: copy-on-write, image and map. */
export async function closeMember(context: DriverContext, member: Member): Promise<void> {
  const { tracker, area } = member;
  if (area === undefined) return;
  const { reactors, logger } = context;
  const of = { tracker: tracker.id, area: area.id };
  // Copy-on-write ends first, and reads of the image with it: then nothing can delay the rest. What a store or the
  // original does not answer is given up in time.
  const timeoutMs = context.ioTimeoutMs + AREA_DROP_SPARE_MS;
  await reactors.request(tracker.reactor, { type: "dropArea", ...of }, timeoutMs);
  faultPoint("destroy.area-dropped");
  await closeImage(context, member);
  faultPoint("destroy.image-stopped");
  // If a first answer got lost and the area is gone at the second request, only "areaIdle" tells.
  const isUnknown = member.lateAreas.has(area.id);
  member.lateAreas.add(area.id);
  const { isLate } = await reactors.request<CloseAreaReply>(tracker.reactor, {
    type: "closeArea",
    ...of,
  });
  if (isLate === false || (isLate === null && !isUnknown)) member.lateAreas.delete(area.id);
  if (isLate === true) {
    const text = "a store or the original does not answer: outstanding I/O keeps the stores in use";
    logger.warn({ device: tracker.device }, text);
  }
  faultPoint("destroy.area-closed");
  // Before its descriptor is closed: whatever fails from here on, nothing must close it again.
  member.area = undefined;
  member.imageNumber = undefined;
  await context.state.removeMap(area.map);
  faultPoint("destroy.map-removed");
}

/** Ends the image; copy-on-write continues. */
export async function closeImage({ frontend }: DriverContext, member: Member): Promise<void> {
  const { image, imageLink } = member;
  if (image === undefined) return;
  frontend.links.remove(imageLink, image.path);
  await image.stop();
  member.image = undefined;
  member.imageLink = undefined;
}
