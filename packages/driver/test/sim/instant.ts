/** A snapshot shows one instant: writes before it are on it, later ones are not. */
import type { SimSnapshot, WindowWrite } from "./device.js";
import { Violation } from "./violation.js";
import { ZERO } from "./volume.js";

/** @throws Violation */
export function assertOneInstant(snapshot: SimSnapshot): void {
  // Zeroed sectors look like ones never written.
  const writes = snapshot.window.filter(({ value }) => value !== ZERO);
  let firstMissing: WindowWrite | undefined;
  for (const write of writes) {
    if (isThere(snapshot, write) !== false) continue;
    if (firstMissing === undefined || write.answeredAt < firstMissing.answeredAt) {
      firstMissing = write;
    }
  }
  if (firstMissing === undefined) return;
  for (const write of writes) {
    if (write.askedAt <= firstMissing.answeredAt || isThere(snapshot, write) !== true) continue;
    throw new Violation(
      `write ${write.value} to ${write.device.path} is on its image, and write ` +
        `${firstMissing.value} to ${firstMissing.device.path}, which had ended before, is not`,
    );
  }
}

/** Undefined: later writes cover all of it. @throws Violation if a part of it is there */
function isThere(snapshot: SimSnapshot, write: WindowWrite): boolean | undefined {
  const image = snapshot.images.get(write.device);
  if (image === undefined) return undefined;
  const { firstSector, sectors, value, askedAt } = write;
  const over = snapshot.window.filter(
    (other) => other.device === write.device && other.askedAt > askedAt,
  );
  let answer: boolean | undefined;
  for (let at = firstSector; at < firstSector + sectors; at++) {
    const isCovered = over.some(
      (other) => at >= other.firstSector && at < other.firstSector + other.sectors,
    );
    // Lost blocks could not be read.
    if (isCovered || image.volume.others.has(at)) continue;
    const is = image.volume.values[at] === value;
    if (answer !== undefined && is !== answer) {
      throw new Violation(`write ${value} to ${write.device.path} is in part on its image`);
    }
    answer = is;
  }
  return answer;
}
