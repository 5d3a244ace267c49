/** Diffs of a device: they have everything written after one take and before the last. */
import type { Device, TakeNumber } from "./device.js";
import { GROWN_MAX_SECTORS } from "./settings.js";
import type { Simulation } from "./simulation.js";
import { Violation } from "./violation.js";
import { SECTOR_BYTES } from "./volume.js";

/** What the driver answers. */
interface Found {
  readonly generation_id: string;
  readonly changes_number: number;
  readonly isChanged: Uint8Array;
}

/** @param first since this take; default: one of all @throws Violation */
export async function assertDiff(
  sim: Simulation,
  device: Device,
  first?: TakeNumber,
): Promise<void> {
  const since = first ?? device.takes[sim.random.below(Math.max(1, device.takes.length))];
  const { frozen, generation } = device;
  if (since === undefined || frozen === undefined || !device.takes.includes(since)) return;
  const last = device.takes.at(-1)?.number;
  device.isInHand = true;
  const put = (): void => {
    device.isInHand = false;
  };
  const what = `diff ${device.path} since ${since.number}`;
  const asked = sim.call(what, () => diff(sim, device, since.number), put);
  // In another generation there may be no such number.
  const answer = await asked.catch((error: Error & { code?: string }) => {
    if (error.code !== "CBT_NUMBER_UNKNOWN" || !sim.growths.mayRenew(device)) throw error;
    return undefined;
  });
  put();
  if (answer === undefined || answer.generation_id !== generation) {
    if (sim.growths.mayRenew(device)) return;
    throw new Violation(`${what}: another generation`);
  }
  if (answer.changes_number !== last) {
    throw new Violation(`${what}: the last take is ${answer.changes_number}, not ${last}`);
  }
  const missed = frozen.findIndex(
    (at, sector) => at > since.answeredAt && answer.isChanged[sector] === 0,
  );
  if (missed >= 0) throw new Violation(`${what} misses a write of sector ${missed}`);
}

async function diff({ driver }: Simulation, { path }: Device, since: number): Promise<Found> {
  const { ranges, ...found } = await driver.diff(path, since);
  const isChanged = new Uint8Array(GROWN_MAX_SECTORS);
  for await (const batch of ranges) {
    for (const { offset_bytes: offset, length_bytes: length } of batch) {
      isChanged.fill(1, offset / SECTOR_BYTES, (offset + length) / SECTOR_BYTES);
    }
  }
  return { ...found, isChanged };
}
