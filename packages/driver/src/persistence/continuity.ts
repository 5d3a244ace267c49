/**
 * Whether a changed-block map is still the whole truth after a time in which nobody tracked: it is only
 * if nobody else wrote to the original meanwhile. Where that cannot be shown it is not assumed.
 */
import { compareIdentity, type DeviceIdentity, differingField } from "./device-identity.js";
import type { ContentDigest } from "./superblocks.js";
import type { Witness } from "./witness.js";

/** What is recorded about an original, and looked up again when it comes back. */
export interface PersistedIdentity {
  readonly capacityBytes: number;
  readonly logicalBlockBytes: number;
  readonly identity: DeviceIdentity;
  readonly content: ContentDigest;
  readonly witness: Witness;
}

export interface EarlierTracking extends PersistedIdentity {
  /**
   * The tracker was detached in order, and all of this recorded after its last write. Otherwise power
   * was cut or the machine or the daemon crashed, the journal has all that the tracker wrote, and
   * witness and content are those of the time of attaching.
   */
  readonly clean: boolean;
}

export type GenerationReason = "capacity_changed" | "foreign_write" | "unclean";

export type Continuity =
  | { readonly verdict: "continue" }
  | {
      readonly verdict: "new_generation";
      readonly reason: GenerationReason;
      /** A clause for a log line and `status`. */
      readonly why: string;
    }
  | { readonly verdict: "other_device"; readonly why: string };

const CONTINUE: Continuity = { verdict: "continue" };

export function judgeContinuity(before: EarlierTracking, now: PersistedIdentity): Continuity {
  const field = differingField(before.identity, now.identity);
  if (field !== null) {
    const why = changed(FIELD_NAMES[field], before.identity[field], now.identity[field]);
    return { verdict: "other_device", why };
  }
  if (isRegularFile(before.witness) !== isRegularFile(now.witness)) {
    const [was, is] = isRegularFile(now.witness) ? ["device", "file"] : ["file", "device"];
    return { verdict: "other_device", why: `it was a ${was} and is a ${is}` };
  }
  if (before.capacityBytes !== now.capacityBytes) {
    const why = changed("capacity in bytes", before.capacityBytes, now.capacityBytes);
    return newGeneration("capacity_changed", why);
  }
  if (before.logicalBlockBytes !== now.logicalBlockBytes) {
    const why = changed("logical block size", before.logicalBlockBytes, now.logicalBlockBytes);
    return newGeneration("capacity_changed", why);
  }
  return before.clean ? judgeClean(before, now) : judgeUnclean(before, now);
}

/**
 * Evidence of the counters, where they reach back to the detach or to the appearance of the device; and
 * of the content, always: it also shows what counters are blind to.
 */
function judgeClean(before: EarlierTracking, now: PersistedIdentity): Continuity {
  const file = fileTouched(before.witness, now.witness);
  if (file !== undefined) return newGeneration("foreign_write", file);
  const written =
    incarnation(before.witness, now.witness) === "same" &&
    countersKnown(before.witness) &&
    countersKnown(now.witness)
      ? writtenBetween(before.witness, now.witness)
      : writtenSinceAppearance(now.witness);
  if (written !== undefined) return newGeneration("foreign_write", written);
  if (before.content.digest !== now.content.digest) {
    return newGeneration("foreign_write", contentChange(before.content, now.content));
  }
  return CONTINUE;
}

/**
 * What the original held when tracking ended is not known, so only counters can tell, and only if they
 * began after it: in another boot, or on a device made anew. They do not know of writes in a boot
 * between the two, as by a rescue system.
 */
function judgeUnclean(before: EarlierTracking, now: PersistedIdentity): Continuity {
  const unclean = (why: string) => newGeneration("unclean", why);
  if (isRegularFile(now.witness)) {
    return unclean("tracking ended unexpectedly, and nobody counts the writes to a regular file");
  }
  if (compareIdentity(before.identity, now.identity) !== "same") {
    return unclean("tracking ended unexpectedly, and nothing proves that this is the same device");
  }
  if (incarnation(before.witness, now.witness) !== "other") {
    return unclean("tracking ended unexpectedly while the device stayed in use");
  }
  if (!countersKnown(now.witness)) {
    return unclean(
      "tracking ended unexpectedly, and the kernel does not count the device's writes",
    );
  }
  const written = writtenSinceAppearance(now.witness);
  return written === undefined ? CONTINUE : newGeneration("foreign_write", written);
}

function newGeneration(reason: GenerationReason, why: string): Continuity {
  return { verdict: "new_generation", reason, why };
}

function isRegularFile({ mtimeNs }: Witness): boolean {
  return mtimeNs !== null;
}

/** Whether the kernel's view of the device is the one of then: its counters went on. */
function incarnation(before: Witness, now: Witness): "same" | "other" | "unknown" {
  if (before.bootId !== now.bootId) return "other";
  if (before.diskseq === null || now.diskseq === null) return "unknown";
  return before.diskseq === now.diskseq ? "same" : "other";
}

function countersKnown({ writeSectors, discardSectors }: Witness): boolean {
  return writeSectors !== null && discardSectors !== null;
}

/** Undefined when nothing was written; else a clause about it. */
function writtenBetween(before: Witness, now: Witness): string | undefined {
  const written = (now.writeSectors ?? 0) - (before.writeSectors ?? 0);
  const discarded = (now.discardSectors ?? 0) - (before.discardSectors ?? 0);
  if (written < 0 || discarded < 0) return "its write counters were reset while it was not tracked";
  if (written === 0 && discarded === 0) return undefined;
  return `${amounts(written, discarded)} while it was not tracked`;
}

function writtenSinceAppearance({ writeSectors, discardSectors }: Witness): string | undefined {
  const [written, discarded] = [writeSectors ?? 0, discardSectors ?? 0];
  if (written === 0 && discarded === 0) return undefined;
  return `${amounts(written, discarded)} since the device appeared, before it was tracked`;
}

function amounts(written: number, discarded: number): string {
  const parts = [
    ...(written > 0 ? [`${sectors(written)} written`] : []),
    ...(discarded > 0 ? [`${sectors(discarded)} discarded`] : []),
  ];
  return parts.join(" and ");
}

function sectors(count: number): string {
  return count === 1 ? "1 sector was" : `${count} sectors were`;
}

function fileTouched(before: Witness, now: Witness): string | undefined {
  if (before.mtimeNs !== now.mtimeNs) return "the file was modified while it was not tracked";
  if (before.ctimeNs !== now.ctimeNs) return "the file's inode changed while it was not tracked";
  return undefined;
}

function contentChange(before: ContentDigest, now: ContentDigest): string {
  if (before.fileSystem !== now.fileSystem || before.uuid !== now.uuid) {
    const [was, is] = [before, now].map(({ fileSystem }) => fileSystem ?? "no known file system");
    return `it was formatted or overwritten while it was not tracked: ${was} then, ${is} now`;
  }
  const name = now.fileSystem ?? "device";
  return `the ${name}'s superblock, log or partition table changed while it was not tracked`;
}

const FIELD_NAMES: Readonly<Record<keyof DeviceIdentity, string>> = {
  wwid: "WWID",
  serial: "serial number",
  dmUuid: "device-mapper UUID",
  partition: "partition number",
  partUuid: "PARTUUID",
  contentUuid: "file system UUID",
};

function changed(name: string, was: string | number | null, is: string | number | null): string {
  return `its ${name} was ${was ?? "none"} and is ${is ?? "none"}`;
}
