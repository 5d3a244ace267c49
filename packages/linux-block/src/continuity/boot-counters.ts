/**
 * Counters that each boot of the machine increments, whatever system it boots: only they prove that no rescue disk
 * was booted between two boots of this system, nor this system without a daemon.
 *
 * - The TPM's reset count. A resume after hibernation is a "restart", counted beside it.
 * - The high half of UEFI's monotonic counter, which firmware made from EDK II keeps in the variable MTC.
 *
 * Neither counts a kernel that another one started (kexec).
 *
 * Facts: TPM 2.0 Library, Part 1 "Time and Clock" and Part 3 TPM2_ReadClock; UEFI 2.10, 8.5.3
 * GetNextHighMonotonicCount; Documentation/arch/x86/boot.rst (type_of_loader),
 * Documentation/admin-guide/sysctl/kernel.rst (bootloader_type).
 */
import { open, readFile } from "node:fs/promises";
import { join } from "node:path";
import { within } from "../within.js";
import type { BootCounters } from "./boot-mark.js";

/** Without an answer, only this proof is missing. */
const TPM_TIMEOUT_MS = 5_000;

/** Paths of the counters. */
export interface CounterSources {
  readonly proc: string;
  readonly efiVariables: string;
  readonly tpm: string;
}

const SOURCES: CounterSources = {
  proc: "/proc",
  efiVariables: "/sys/firmware/efi/efivars",
  tpm: "/dev/tpmrm0",
};

const EFI_COUNTER = "MTC-eb704011-1402-11d3-8e77-00a0c969723b";
/** Attributes, then the value. */
const EFI_COUNTER_BYTES = 8;
/** No sessions; 10 bytes; TPM_CC_ReadClock. */
const READ_CLOCK = Buffer.from("80010000000a00000181", "hex");
const READ_CLOCK_BYTES = 35;
const RESETS_OFFSET = 26;
const RESTARTS_OFFSET = 30;
/** High nibble of a loader's byte: kexec, and any loader without its own number. */
const LOADER_KEXEC = 0xd;
const LOADER_UNKNOWN = 0xf;

/** Null for a counter that cannot be read. */
export async function readBootCounters(sources: CounterSources = SOURCES): Promise<BootCounters> {
  const tpm = await tpmCounters(sources.tpm).catch(() => undefined);
  const firmwareBoots = await efiCounter(sources.efiVariables).catch(() => null);
  const isFirst = (await isStartedByLoader(sources.proc)) && (tpm?.restarts ?? 0) === 0;
  return { tpmResets: tpm?.resets ?? null, firmwareBoots, isFirst };
}

async function efiCounter(folder: string): Promise<number | null> {
  const bytes = await readFile(join(folder, EFI_COUNTER));
  return bytes.length === EFI_COUNTER_BYTES ? bytes.readUInt32LE(4) : null;
}

function tpmCounters(path: string): Promise<{ resets: number; restarts: number } | undefined> {
  return within(readClock(path), TPM_TIMEOUT_MS);
}

async function readClock(path: string) {
  const tpm = await open(path, "r+");
  try {
    await tpm.write(READ_CLOCK);
    const answer = Buffer.alloc(READ_CLOCK_BYTES);
    const { bytesRead } = await tpm.read(answer, 0, answer.length, null);
    const failed = answer.readUInt32BE(6) !== 0;
    if (bytesRead !== READ_CLOCK_BYTES || failed) return undefined;
    return {
      resets: answer.readUInt32BE(RESETS_OFFSET),
      restarts: answer.readUInt32BE(RESTARTS_OFFSET),
    };
  } finally {
    await tpm.close();
  }
}

/** Only x86 reports what has started the kernel. */
async function isStartedByLoader(proc: string): Promise<boolean> {
  try {
    const type = Number(await readFile(join(proc, "sys/kernel/bootloader_type"), "utf8"));
    return Number.isInteger(type) && ![LOADER_KEXEC, LOADER_UNKNOWN].includes(type >> 4);
  } catch {
    return false;
  }
}
