/** How many VMs run at once. */
import { readFileSync } from "node:fs";
import { availableParallelism } from "node:os";

/** A guest has 4 GiB, rarely uses half of it, and the host needs memory for servers and an emulator. */
const MEMORY_PER_VM_MIB = 4608;
/**
 * A scenario is mostly one chain of processes. Emulated, a second processor makes the same work a third more
 * expensive and hardly shortens it; groups whose subject is concurrency have two all the same.
 */
export const CPUS_PER_VM = 1;

function availableMemoryMib() {
  const [, kib] = /^MemAvailable:\s+(\d+) kB$/m.exec(readFileSync("/proc/meminfo", "utf8")) ?? [];
  return Number(kib ?? 0) / 1024;
}

/** As many as processors and memory allow, and at least one. */
export function vmsAtOnce() {
  const byMemory = Math.floor(availableMemoryMib() / MEMORY_PER_VM_MIB);
  return Math.max(1, Math.min(availableParallelism(), byMemory));
}
