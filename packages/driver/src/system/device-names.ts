/** Names by which users and udev rules find fronts and images, and their partitions. */
import { DeviceLinks, UdevMarks } from "@blksnap/linux-block";
import { addPartitions } from "@blksnap/ublk";
import type { Logger } from "pino";

/**
 * /dev/blksnap/NAME and /dev/blksnap/NAME-image. If another volume may have the same name, these are unique:
 * /dev/blksnap/by-original/dev/vg/NAME, /dev/blksnap/snapshot/ID/dev/vg/NAME.
 */
export const links: DeviceLinks = new DeviceLinks("/dev/blksnap");

/** @returns the short link, if there is one now */
export function linkFront(
  { links: to }: { readonly links: Pick<DeviceLinks, "add"> },
  device: string,
  front: string,
): string | undefined {
  return to.add(device, front, `by-original${device}`);
}

/** As linkFront(). */
export function linkImage(
  { links: to }: { readonly links: Pick<DeviceLinks, "add"> },
  { snapshot, device }: { readonly snapshot: string; readonly device: string },
  image: string,
): string | undefined {
  return to.add(`${device}-image`, image, `snapshot/${snapshot}${device}`);
}

/** The same folder as in packages/daemon/udev/59-blksnap.rules. */
export const MARKS_DIRECTORY = "/run/blksnap-udev";
export const MARK_KINDS = ["fronts", "images"] as const;

export const udevMarks: UdevMarks<(typeof MARK_KINDS)[number]> = new UdevMarks(
  MARKS_DIRECTORY,
  MARK_KINDS,
);

/** Makes the partitions of a front or an image. Never fails: the device can be used without them. */
export async function makePartitions(device: string, logger: Logger): Promise<void> {
  try {
    await addPartitions(device);
  } catch (error) {
    const text = `${(error as Error).message}; see partx(8)`;
    logger.warn({ device, err: error }, text);
  }
}
