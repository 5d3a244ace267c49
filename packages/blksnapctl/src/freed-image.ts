/** Images that an export frees while it reads them (`export`): to everyone else the rest is zeros. */
import type { StatusResponse } from "@blksnap/api";

type Snapshots = StatusResponse["snapshots"];

export function imagesIn(snapshots: Snapshots): string[] {
  return snapshots.flatMap(({ devices }) => devices.flatMap(({ image }) => image ?? []));
}

/** Why the image is incomplete; undefined if it is complete. */
export function whyFreed(snapshots: Snapshots, image: string): string | undefined {
  const freed = snapshots.filter(({ releasable_images }) => releasable_images);
  if (!imagesIn(freed).includes(image)) return undefined;
  return `${image} is read by an export that frees what it has read`;
}
