/** How many VMs run at once. */
import { readFileSync } from "node:fs";
import { availableParallelism } from "node:os";

/** A guest has 4 GiB, seldom touches the half, and has servers and an emulator beside it. */
const MEMORY_PER_VM_MIB = 4608;
/**
 * A scenario is mostly one chain of processes. Emulated, a second processor costs a third more for the same work and ends
 * hardly sooner; groups of the plan whose subject is what runs at the same time have two all the same.
 */
export const CPUS_PER_VM = 1;

function availableMemoryMib() {
  const [, kib] = /^MemAvailable:\s+(\d+) kB$/m.exec(readFileSync("/proc/meminfo", "utf8")) ?? [];
  return Number(kib ?? 0) / 1024;
}

/** As many as processors and memory bear, and one in any case. */
export function vmsAtOnce() {
  const byMemory = Math.floor(availableMemoryMib() / MEMORY_PER_VM_MIB);
  return Math.max(1, Math.min(availableParallelism(), byMemory));
}
