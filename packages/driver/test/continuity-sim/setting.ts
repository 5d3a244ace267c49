/** The settings of a simulated machine, and what docs/persistence.md promises for them. */
import type {
  BootCounters,
  DeviceIdentity,
  isEndOfBoot,
  judgeContinuity,
  PersistedIdentity,
} from "@blksnap/linux-block";
import type { Contents } from "./disk.js";

type Probe = NonNullable<Parameters<typeof isEndOfBoot>[0]>;
type Witness = PersistedIdentity["witness"];

export interface Setting {
  readonly contents: Contents;
  readonly kind: "disk" | "nameless disk" | "uncounted disk" | "image file";
  /** The machine's boot counter. */
  readonly counter: "tpm" | "efi" | "stuck" | "none";
  /** The operator guarantees that no other program writes, and keeps that promise. */
  readonly trustReboots: boolean;
}

export type Judge = typeof judgeContinuity;

/** Deliberate mistakes. */
export interface Plants {
  readonly judge?: Judge;
  readonly ignoresKexec?: boolean;
  readonly ignoresSoftReboot?: boolean;
}

/** How tracking last ended. */
export type End = "detached" | "stopped" | "closed" | "died" | "cut" | "none";

export interface Seen {
  continued: number;
  cut: number;
  foreignFound: number;
  promised: number;
}

/** An end and a return without a write in between. */
export interface Return {
  readonly end: End;
  readonly isClean: boolean;
  readonly inOneBoot: boolean;
  readonly isSameDisk: boolean;
  readonly sleptSinceMs: number;
  /** Sleep in this boot. */
  readonly sleptMs: number;
  /** Proven by its file system, which was unmounted. */
  readonly isProven: boolean;
  readonly sessionNoted: boolean;
  /** The very next boot, in which the disk is there from the start. */
  readonly isNext: boolean;
}

/** Why the map has to continue; undefined if docs/persistence.md promises nothing. */
export function promiseOf(
  { kind, counter, trustReboots }: Setting,
  { end, isClean, inOneBoot, ...found }: Return,
): string | undefined {
  const isFile = kind === "image file";
  const isCounted = kind === "disk" || kind === "nameless disk";
  const isNamed = kind === "disk" || kind === "uncounted disk";
  if (isClean && inOneBoot && isFile) return "image file, detached or stopped";
  const isWatched = found.isSameDisk && isCounted && found.sleptSinceMs === 0;
  if (isClean && inOneBoot && isWatched) return "detached or stopped, and back in the same boot";
  if (isClean && found.isProven) return "ext4 or XFS, unmounted";
  if (!isClean && found.sessionNoted && isNamed) return "ext4, power cut";
  if (!found.isNext || (kind !== "disk" && !isFile)) return undefined;
  const isMachineCounted = counter === "tpm" || counter === "efi";
  if (end === "closed" && found.sleptMs === 0 && isMachineCounted) return "reboot";
  const trusted: readonly End[] = isFile ? ["closed"] : ["closed", "cut", "died"];
  return trustReboots && trusted.includes(end) ? "trusted reboot" : undefined;
}

/**
 * Whether docs/persistence.md says that a move of the disk to another machine is detected: by file systems that prove
 * it, and if no counter of this machine is trusted.
 */
export function seesMove({ kind, counter, trustReboots }: Setting, proves: boolean): boolean {
  const isBelieved = kind === "disk" && (counter === "tpm" || counter === "efi");
  return kind !== "image file" && !trustReboots && (proves || !isBelieved);
}

/** How the system goes down. */
export interface Ending {
  readonly isStopping: boolean;
  readonly isSoft: boolean;
  readonly kexecLoaded: boolean;
}

export function probeOf({ isStopping, isSoft, kexecLoaded }: Ending): Probe {
  return {
    systemState: async () => (isStopping ? "stopping\n" : "running\n"),
    jobs: async () => `7 ${isSoft ? "soft-reboot" : "reboot"}.target start waiting\n`,
    isContainer: () => false,
    firstProcess: async () => ["/sbin/init"],
    kexecLoaded: async () => (kexecLoaded ? "1\n" : "0\n"),
  };
}

/** The counters of a kernel. */
export interface Counted {
  readonly bootId: string;
  readonly diskseq: number;
  readonly sleptMs: number;
  readonly sectors: number;
  readonly times: number;
}

export function witnessOf({ kind }: Setting, counted: Counted): Witness {
  const { bootId, diskseq, sleptMs, times } = counted;
  const isFile = kind === "image file";
  const sectors = kind === "uncounted disk" || isFile ? null : counted.sectors;
  return {
    bootId,
    diskseq: isFile ? null : String(diskseq),
    isFirstAppearance: diskseq === 1,
    sleptMs,
    writeSectors: sectors,
    discardSectors: sectors === null ? null : 0,
    mtimeNs: isFile ? String(times) : null,
    ctimeNs: isFile ? String(times) : null,
  };
}

export function countersOf({ counter }: Setting, boots: number, isFirst: boolean): BootCounters {
  return {
    tpmResets: counter === "tpm" ? boots : null,
    firmwareBoots: counter === "efi" ? boots : counter === "stuck" ? 7 : null,
    isFirst,
  };
}

export function identityOf({ kind }: Setting, startBytes: number): DeviceIdentity {
  const hasName = kind === "disk" || kind === "uncounted disk";
  return {
    wwid: hasName ? "naa.5" : null,
    serial: null,
    dmUuid: null,
    partition: null,
    partUuid: null,
    contentUuid: null,
    startBytes: kind === "image file" ? null : startBytes,
  };
}
