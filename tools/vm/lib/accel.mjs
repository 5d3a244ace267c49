/** Selects the acceleration of the guest's processors: KVM if it works, else emulation. */
import { accessSync, constants, statSync } from "node:fs";
import { cpus, release } from "node:os";
import { readCached, writeCached } from "./cache.mjs";
import { requireProgram } from "./host.mjs";

/**
 * Features whose emulation costs more than it gives: string moves byte by byte, wide vectors, a fifth level of page tables,
 * and protections that end a translated block at each crossing. Without them copying memory is three times quicker.
 */
const COSTLY_FEATURES = "la57 erms fsrm smap smep umip pku avx avx2 xsave"
  .split(" ")
  .map((name) => `${name}=off`);

export const EMULATED = [
  "-accel",
  "tcg,thread=multi",
  "-cpu",
  ["max", ...COSTLY_FEATURES].join(","),
];
const HARDWARE = ["-accel", "kvm", "-cpu", "host"];

function mayOpenKvm() {
  try {
    accessSync("/dev/kvm", constants.R_OK | constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

/** Separately for each guest kernel. */
function answerFile(kernel) {
  return `kvm-probe-${kernel.release}.json`;
}

/** Another processor, host kernel or emulator invalidates an earlier result. */
function probeKey() {
  const emulator = statSync(requireProgram("qemu-system-x86_64", "qemu-system-x86"));
  return [cpus()[0]?.model, release(), emulator.mtimeMs, emulator.size].join("|");
}

/**
 * An existing /dev/kvm does not prove that a guest boots, especially in a nested VM. So one is booted, once.
 *
 * @param {object} kernel the guest's
 * @param {(accel: string[]) => Promise<boolean>} boots says whether a guest comes up with these arguments
 * @returns {Promise<string[]>} arguments for qemu
 */
export async function acceleration(kernel, boots) {
  if (!mayOpenKvm()) return EMULATED;
  const key = probeKey();
  const answer = JSON.parse(readCached(answerFile(kernel)) ?? "{}");
  if (answer.key === key) return answer.works ? HARDWARE : EMULATED;
  const works = await boots(HARDWARE);
  writeCached(answerFile(kernel), JSON.stringify({ key, works }));
  return works ? HARDWARE : EMULATED;
}
