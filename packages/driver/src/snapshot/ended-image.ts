/** An image that ends before its snapshot does. */
import { ENODEV } from "@blksnap/errors";
import type { Logger } from "pino";
import { links } from "../system/device-names.js";
import type { Tracker } from "../tracker/tracker.js";
import type { Snapshot } from "./snapshot.js";

/** The part of a snapshot that the end of an image changes. */
export type WithEndingImages = Pick<Snapshot, "id" | "members" | "saveIfPossible" | "fault">;

/**
 * The queue of a device's image has ended; if this daemon did not end it, another program has deleted it. Copies
 * continue: the next daemon makes the image again. If the image is still being started, call it again afterwards.
 */
export function noteImageEnd(snapshot: WithEndingImages, tracker: Tracker, logger: Logger): void {
  const member = snapshot.members.get(tracker.id);
  if (member === undefined) return;
  const { image } = member;
  if (image === undefined) {
    member.hasEarlyEnd = true;
    return;
  }
  const { device } = tracker;
  const isByOthers = image.noteEnd(() => {
    links.remove(member.imageLink, image.path);
    member.imageLink = undefined;
    member.imageNumber = undefined;
    snapshot.saveIfPossible();
  });
  if (!isByOthers) return;
  const text = `another program has ended the image ${image.path}`;
  logger.error({ device, snapshot: snapshot.id }, text);
  if (member.area !== undefined) snapshot.fault(tracker, member.area.id, ENODEV);
}
