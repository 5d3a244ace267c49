/**
 * Snapshots whose store is too small, or whose media fail: their images lose blocks, and nothing else is wrong. A
 * failed read covers a range that `status` reports as lost, and no read of such a range succeeds.
 */
import { constants } from "node:os";
import type { SnapshotEvent } from "@blksnap/api";
import type { Image, SimSnapshot } from "./device.js";
import type { Simulation } from "./simulation.js";
import { Violation } from "./violation.js";
import { SECTOR_BYTES } from "./volume.js";

type Status = Awaited<ReturnType<Simulation["driver"]["status"]>>;
type DeviceStatus = Status["snapshots"][number]["devices"][number];

/** What `status` has reported for an image. */
export interface ReportedLosses {
  /** How many writes to the image had begun by then. */
  readonly changes: number;
  readonly ranges: DeviceStatus["lost_ranges"];
  /** Ranges that no write in flight may have healed since. */
  readonly untouched: DeviceStatus["lost_ranges"];
}

interface Range {
  readonly first: number;
  readonly count: number;
}

export const ENOSPC: number = constants.errno.ENOSPC;
export const EIO: number = constants.errno.EIO;

export function snapshotOf({ snapshots }: Simulation, image: Image): SimSnapshot | undefined {
  return snapshots.find(({ images }) => images.get(image.device) === image);
}

/** How many writes to each image have begun so far. */
export type Stamps = ReadonlyMap<Image, number>;

export function stampImages(sim: Simulation): Stamps {
  return new Map(sim.images().map((image) => [image, image.volume.changes]));
}

/**
 * @param asked when the status was asked for
 * @throws Violation if an image has lost what it had no reason to lose, or reports a wrong reason
 */
export function noteLosses(sim: Simulation, status: Status, asked: Stamps): void {
  for (const { id, devices } of status.snapshots) {
    const snapshot = sim.snapshots.find((one) => one.id === id);
    for (const found of devices) {
      const image = [...(snapshot?.images.values() ?? [])].find(
        ({ device }) => device.path === found.device,
      );
      // Until its take, a device reports its previous snapshot.
      if (snapshot === undefined || image === undefined || snapshot.isTaking) continue;
      assertReason(snapshot, found);
      const { volume } = image;
      const untouched = found.lost_ranges.filter(
        ({ offset_bytes: offset, length_bytes: length }) =>
          !volume.isBusy(offset / SECTOR_BYTES, length / SECTOR_BYTES),
      );
      // A write that has ended since the status was asked for may have healed what it tells of.
      const changes = asked.get(image) ?? volume.changes;
      image.told = { changes, ranges: found.lost_ranges, untouched };
      if (found.lost_ranges.length > 0) sim.count("losses");
    }
  }
}

function assertReason({ mayLose }: SimSnapshot, found: DeviceStatus): void {
  const { device, error_code: code, lost_bytes: lostBytes } = found;
  if (code !== 0 && !mayLose.has(-code)) {
    throw new Violation(`the image of ${device} has error ${code}, and nothing is wrong`);
  }
  if (code === 0 && lostBytes > 0) {
    throw new Violation(`the image of ${device} has lost ${lostBytes} bytes, and has no error`);
  }
}

/** @throws Violation if an event reports a loss without a reason */
export function assertEvents(snapshot: SimSnapshot, events: readonly SnapshotEvent[]): void {
  const { mayBeFull, mayLose } = snapshot;
  for (const event of events) {
    const isLoss = event.event === "corrupted" && !mayLose.has(event.errno);
    if (isLoss || (event.event === "no_space" && !mayBeFull && !mayLose.has(ENOSPC))) {
      throw new Violation(`event ${JSON.stringify(event)}, and nothing is wrong`);
    }
  }
}

/** A read of an image has failed: the range must be lost. @param changes of the image when it began */
export function readFailed(sim: Simulation, image: Image, range: Range, changes: number): void {
  const snapshot = snapshotOf(sim, image);
  // A driver that recovers answers nothing yet, and the one before it would tell what it knew.
  if (snapshot === undefined || !sim.isServing) return;
  sim.spawn(assertLost(sim, snapshot, image, range, changes));
}

async function assertLost(
  sim: Simulation,
  snapshot: SimSnapshot,
  image: Image,
  range: Range,
  changes: number,
): Promise<void> {
  const what = `a read of ${range.count} sectors at ${range.first} of ${image.volume.name} failed`;
  if (snapshot.mayLose.size === 0) throw new Violation(`${what}, and nothing is wrong`);
  // A failed transfer from a medium need not be a loss.
  if (sim.media.hasFailed) return;
  const asked = stampImages(sim);
  const status = await sim.call(
    "status",
    () => sim.driver.status(),
    () => undefined,
  );
  if (!sim.snapshots.includes(snapshot)) return;
  noteLosses(sim, status, asked);
  if (image.volume.changedSince(changes, range.first, range.count)) return;
  const isThere = status.snapshots.some(({ id }) => id === snapshot.id);
  const isLost = image.told?.ranges.some((lost) => overlap(range, lost) !== undefined);
  if (isThere && isLost !== true) throw new Violation(`${what}, and it is not told of as lost`);
}

/** A read has succeeded that began after this report. @throws Violation */
export function assertNotLost(
  { volume }: Image,
  told: ReportedLosses | undefined,
  range: Range,
): void {
  for (const lost of told?.untouched ?? []) {
    const both = overlap(range, lost);
    if (both === undefined) continue;
    if (volume.changedSince(told?.changes as number, both.first, both.count)) continue;
    throw new Violation(`sector ${both.first} of ${volume.name} is lost, and was read`);
  }
}

function overlap(
  { first, count }: Range,
  lost: ReportedLosses["ranges"][number],
): Range | undefined {
  const lostFirst = lost.offset_bytes / SECTOR_BYTES;
  const lostEnd = lostFirst + lost.length_bytes / SECTOR_BYTES;
  const from = Math.max(first, lostFirst);
  const end = Math.min(first + count, lostEnd);
  return from < end ? { first: from, count: end - from } : undefined;
}
