/** What a simulated machine is like, and what the README promises of it. */
import type { BootCounters, DeviceIdentity, judgeContinuity } from "@blksnap/linux-block";
import type { Contents } from "./disk.js";

export interface Setting {
  readonly contents: Contents;
  readonly kind: "disk" | "nameless disk" | "uncounted disk" | "image file";
  /** What counts the machine's boots. */
  readonly counter: "tpm" | "efi" | "stuck" | "none";
  /** The operator guarantees it, and keeps to it. */
  readonly trustReboots: boolean;
}

export type Judge = typeof judgeContinuity;

/** What is done wrong on purpose. */
export interface Plants {
  readonly judge?: Judge;
  readonly ignoresKexec?: boolean;
  readonly ignoresSoftReboot?: boolean;
}

/** How tracking ended last. */
export type End = "detached" | "stopped" | "closed" | "died" | "cut" | "none";

export interface Seen {
  continued: number;
  cut: number;
  foreignFound: number;
  promised: number;
}

/** An end and a return between which nobody wrote. */
export interface Return {
  readonly end: End;
  readonly isClean: boolean;
  readonly inOneBoot: boolean;
  readonly isSameDisk: boolean;
  readonly sleptSinceMs: number;
  /** In this boot. */
  readonly sleptMs: number;
  /** By its file system, which was unmounted. */
  readonly isProven: boolean;
  readonly sessionNoted: boolean;
  /** The very next boot, with the disk there from the start. */
  readonly isNext: boolean;
}

/** Why the map has to go on; undefined where the README promises nothing. */
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

export function countersOf({ counter }: Setting, boots: number, isFirst: boolean): BootCounters {
  return {
    tpmResets: counter === "tpm" ? boots : null,
    firmwareBoots: counter === "efi" ? boots : counter === "stuck" ? 7 : null,
    isFirst,
  };
}

export function identityOf({ kind }: Setting): DeviceIdentity {
  const hasName = kind === "disk" || kind === "uncounted disk";
  return {
    wwid: hasName ? "naa.5" : null,
    serial: null,
    dmUuid: null,
    partition: null,
    partUuid: null,
    contentUuid: null,
  };
}
