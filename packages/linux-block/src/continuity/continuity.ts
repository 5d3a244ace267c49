/**
 * Whether a changed-block map is still complete after a time without tracking. It continues only if nothing shows a
 * write and something proves that there was none:
 *
 * - the counters of the device, as long as it is the same incarnation of it and the system did not sleep;
 *   the times of a regular file in the same boot: those of the last seconds before a power cut are lost;
 * - a file system's own superblock (file-system-proof.ts);
 * - a record that was closed as the last of a system that went down, when this boot is the very next one
 *   of the machine, and nothing has been written since the device appeared in it, which it did once; or,
 *   to a regular file, since the boot began.
 *
 * Unknown facts neither show a write nor prove that there was none.
 */
import type { BootMark } from "./boot-mark.js";
import {
  compareIdentity,
  type DeviceIdentity,
  differingField,
  hasSameName,
  type NamingField,
} from "./device-identity.js";
import type { ContentDigest } from "./superblocks.js";
import type { WriteCounters } from "./write-counters.js";

/** Recorded facts about an original, compared when it returns. */
export interface PersistedIdentity {
  readonly capacityBytes: number;
  readonly logicalBlockBytes: number;
  readonly identity: DeviceIdentity;
  readonly content: ContentDigest;
  readonly witness: WriteCounters;
  /** Absent in records of earlier versions. */
  readonly boot?: BootMark;
}

export interface EarlierTracking extends PersistedIdentity {
  /**
   * The tracker was detached in order, and all of this recorded after its last write. Otherwise power was cut, or the
   * machine or the daemon crashed: the journal has all that the tracker wrote, and witness and content are of an
   * earlier time.
   */
  readonly clean: boolean;
  /** Clean, and the system was shutting down, without a program that could still write. */
  readonly closing?: boolean;
  /**
   * Not clean, and the front existed to the end: a record says so before a front goes. So tracking ended with the
   * boot, or with the daemon. Absent in records of earlier versions.
   */
  readonly serving?: boolean;
}

export interface JudgeOptions {
  /**
   * The operator guarantees that from one boot of this system to the next only persistent trackers write
   * to their devices: no rescue disk, no other machine, no boot without this daemon.
   */
  readonly trustReboots?: boolean;
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

export function judgeContinuity(
  before: EarlierTracking,
  now: PersistedIdentity,
  options: JudgeOptions = {},
): Continuity {
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
  const [start, startNow] = [before, now].map(({ identity }) => startOf(identity));
  if (start !== startNow) {
    return newGeneration("foreign_write", changed("first byte on the disk", start, startNow));
  }
  const write = before.clean ? writeAfterEnd(before, now) : writeAfterCrash(before, now);
  if (write !== undefined) return newGeneration("foreign_write", write);
  const doubt = before.clean
    ? doubtAfterEnd(before, now, options)
    : doubtAfterCrash(before, now, options);
  return doubt === undefined ? CONTINUE : newGeneration("unclean", doubt);
}

/**
 * Why a device with the name of an earlier one may be another, though no name of the hardware or the content differs;
 * undefined if nothing indicates that. Without such names two disks of one size cannot be distinguished. A regular
 * file is whatever is at its path.
 */
export function doubtOfIdentity(
  before: PersistedIdentity,
  now: PersistedIdentity,
): string | undefined {
  if (isRegularFile(now.witness)) return undefined;
  if (compareIdentity(before.identity, now.identity) !== "unknown") return undefined;
  const gone = NAMES.find(
    (name) => (before.identity[name] ?? null) !== null && !isUnreported(name, before, now),
  );
  if (gone !== undefined) return changed(FIELD_NAMES[gone], before.identity[gone], null);
  if (before.capacityBytes === now.capacityBytes) return undefined;
  return changed("capacity in bytes", before.capacityBytes, now.capacityBytes);
}

/** An older kernel does not report the PARTUUID: for the partition in the same place, its absence means nothing. */
function isUnreported(
  name: NamingField,
  before: PersistedIdentity,
  now: PersistedIdentity,
): boolean {
  if (name !== "partUuid" || before.identity.partition !== now.identity.partition) return false;
  return startOf(before.identity) === startOf(now.identity);
}

/** Evidence of a write after tracking had ended in order. */
function writeAfterEnd(before: EarlierTracking, now: PersistedIdentity): string | undefined {
  const file = fileTouched(before.witness, now.witness);
  if (file !== undefined) return file;
  const isSame = incarnationOf(before.witness, now.witness) === "same";
  const written = isSame
    ? writtenBetween(before.witness, now.witness)
    : writtenInThisBoot(before.witness, now.witness);
  if (written !== undefined) return written;
  const isUnchanged = before.content.digest === now.content.digest;
  return isUnchanged ? undefined : contentChange(before.content, now.content);
}

/** Counters that began after the crash include no writes of the tracker. */
function writeAfterCrash(before: EarlierTracking, now: PersistedIdentity): string | undefined {
  return writtenInThisBoot(before.witness, now.witness);
}

/** Why nothing excludes a write after tracking had ended in order; undefined if something does. */
function doubtAfterEnd(
  before: EarlierTracking,
  now: PersistedIdentity,
  options: JudgeOptions,
): string | undefined {
  if (isRegularFile(now.witness)) return doubtAboutFile(before, now, options);
  const incarnation = incarnationOf(before.witness, now.witness);
  const isCounted = countersKnown(before.witness) && countersKnown(now.witness);
  const isAwake = !hasSlept(before.witness, now.witness);
  if (incarnation === "same" && isCounted && isAwake) return undefined;
  if (sameToken(before.content.proof?.unmounted, now.content.proof?.unmounted)) return undefined;
  if (incarnation === "same") return isCounted ? SLEPT : NOT_COUNTED;
  if (before.witness.bootId === now.witness.bootId) {
    return "the device was missing for a time after its tracking ended";
  }
  if (before.closing !== true) {
    return "tracking ended while the system kept running, and the device was not watched until it went down";
  }
  return doubtAboutReboot(before, now, options);
}

/** Whether unchanged times prove that nothing was written. */
function doubtAboutFile(
  before: EarlierTracking,
  now: PersistedIdentity,
  { trustReboots = false }: JudgeOptions,
): string | undefined {
  if (before.witness.bootId === now.witness.bootId) return undefined;
  if (sameToken(before.content.proof?.unmounted, now.content.proof?.unmounted)) return undefined;
  if (before.closing !== true) {
    return "tracking ended before its boot did, and the file's times from then may be lost";
  }
  if (now.boot?.previousBootId !== before.witness.bootId) return OTHER_BOOT;
  if (trustReboots || isNextBoot(before.boot, now)) return undefined;
  return OTHER_SYSTEM;
}

/**
 * The same after a power cut or a crash. Only a file system or the operator can exclude writes then: a daemon that
 * died without a successor looks like one that was cut off, and leaves the device to any program.
 */
function doubtAfterCrash(
  before: EarlierTracking,
  now: PersistedIdentity,
  options: JudgeOptions,
): string | undefined {
  const isNamed = hasSameName(before.identity, now.identity);
  if (isNamed && sameToken(before.content.proof?.session, now.content.proof?.session)) {
    return undefined;
  }
  if (isRegularFile(now.witness)) {
    return "tracking ended unexpectedly, and writes to a regular file are not counted";
  }
  if (before.witness.bootId === now.witness.bootId) {
    return "tracking ended unexpectedly while the system kept running";
  }
  if (options.trustReboots !== true) {
    return "tracking ended unexpectedly, and nothing proves that there were no writes since";
  }
  if (before.serving !== true) {
    return "for a time, the system ran without the front";
  }
  return doubtAboutReboot(before, now, options);
}

/** The device was tracked to the end of its boot: is this the next boot, and were we first in it? */
function doubtAboutReboot(
  { identity, witness, boot }: EarlierTracking,
  now: PersistedIdentity,
  { trustReboots = false }: JudgeOptions,
): string | undefined {
  if (!hasSameName(identity, now.identity)) return "nothing proves that this is the same device";
  if (!countersKnown(now.witness)) return NOT_COUNTED;
  if (now.witness.isFirstAppearance !== true) {
    return "a disk was removed since the system booted, and it may have been this one";
  }
  if (now.boot?.previousBootId !== witness.bootId) {
    return OTHER_BOOT;
  }
  if (trustReboots || isNextBoot(boot, now)) return undefined;
  return OTHER_SYSTEM;
}

/** By a counter of the machine, which counts boots of other systems, too. */
function isNextBoot(
  before: BootMark | undefined,
  { boot: now, witness }: PersistedIdentity,
): boolean {
  if (before === undefined || now === undefined || !now.counters.isFirst) return false;
  if ((witness.sleptMs ?? SLEEP_MS) >= SLEEP_MS) return false;
  const steps = (["tpmResets", "firmwareBoots"] as const).flatMap((name) => {
    const [was, is] = [before.counters[name], now.counters[name]];
    return was === null || is === null || was === is ? [] : [is - was];
  });
  return steps.length > 0 && steps.every((step) => step === 1);
}

/** Clocks are read with a smaller error than this. */
const SLEEP_MS = 1_000;
const NOT_COUNTED = "the kernel does not count the device's writes";
const SLEPT = "the system slept in between, and writes of another system are not counted";
const OTHER_BOOT = "there was another boot in between, in which it was not tracked";
const OTHER_SYSTEM = "nothing proves that no other system ran between the two boots";

/** Also if it is unknown. */
function hasSlept(before: WriteCounters, now: WriteCounters): boolean {
  const [was, is] = [before.sleptMs ?? Number.NaN, now.sleptMs ?? Number.NaN];
  return !(Math.abs(is - was) < SLEEP_MS);
}

function sameToken(before: string | null | undefined, now: string | null | undefined): boolean {
  return typeof before === "string" && before === now;
}

/** No counter covers a device that is mapped to other bytes. */
function startOf({ startBytes = 0 }: DeviceIdentity): number | null {
  return startBytes;
}

function newGeneration(reason: GenerationReason, why: string): Continuity {
  return { verdict: "new_generation", reason, why };
}

function isRegularFile({ mtimeNs }: WriteCounters): boolean {
  return mtimeNs !== null;
}

type Incarnation = Pick<WriteCounters, "bootId" | "diskseq">;

/** Whether it is the same instance of the device, so that its counters continued. */
export function incarnationOf(before: Incarnation, now: Incarnation): "same" | "other" | "unknown" {
  if (before.bootId !== now.bootId) return "other";
  if (before.diskseq === null || now.diskseq === null) return "unknown";
  return before.diskseq === now.diskseq ? "same" : "other";
}

function countersKnown({ writeSectors, discardSectors }: WriteCounters): boolean {
  return writeSectors !== null && discardSectors !== null;
}

/** Undefined if nothing was written; otherwise a clause about the device. */
function writtenBetween(before: WriteCounters, now: WriteCounters): string | undefined {
  const written = grown(before.writeSectors, now.writeSectors);
  const discarded = grown(before.discardSectors, now.discardSectors);
  if (written < 0 || discarded < 0) return "its write counters were reset while it was not tracked";
  if (written === 0 && discarded === 0) return undefined;
  return `${amounts(written, discarded)} while it was not tracked`;
}

/** 0 for a difference that is none or cannot be determined. */
export function grown(before: number | null, now: number | null): number {
  return before === null || now === null ? 0 : now - before;
}

/**
 * Undefined also within one boot: a loop device that is set up again is another incarnation, and continues the
 * counters of the one before.
 */
function writtenInThisBoot(before: WriteCounters, now: WriteCounters): string | undefined {
  if (before.bootId === now.bootId) return undefined;
  const [written, discarded] = [now.writeSectors ?? 0, now.discardSectors ?? 0];
  if (written === 0 && discarded === 0) return undefined;
  return `${amounts(written, discarded)} since the device appeared, before it was tracked`;
}

export function amounts(written: number, discarded: number): string {
  const parts = [
    ...(written > 0 ? [`${sectors(written)} written`] : []),
    ...(discarded > 0 ? [`${sectors(discarded)} discarded`] : []),
  ];
  return parts.join(" and ");
}

function sectors(count: number): string {
  return count === 1 ? "1 sector was" : `${count} sectors were`;
}

function fileTouched(before: WriteCounters, now: WriteCounters): string | undefined {
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

const FIELD_NAMES: Readonly<Record<NamingField, string>> = {
  wwid: "WWID",
  serial: "serial number",
  dmUuid: "device-mapper UUID",
  partition: "partition number",
  partUuid: "PARTUUID",
  contentUuid: "file system UUID",
};

/** Names of a device, in addition to its place. */
const NAMES = ["wwid", "serial", "dmUuid", "partUuid", "contentUuid"] as const;

function changed(name: string, was: string | number | null, is: string | number | null): string {
  return `its ${name} was ${was ?? "none"} and is ${is ?? "none"}`;
}
