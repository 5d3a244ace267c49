/** Threads of a process, those of the kernel's for its I/O among them. */
import { readdirSync, readFileSync } from "node:fs";

const FLAGS_FIELD = 6;

/** The kernel's flags of each. Threads come and go: one that has ended since the names were read is left out. */
export function threadFlags(pid) {
  return readdirSync(`/proc/${pid}/task`).flatMap((tid) => {
    try {
      const stat = readFileSync(`/proc/${pid}/task/${tid}/stat`, "utf8");
      return [Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[FLAGS_FIELD])];
    } catch {
      return [];
    }
  });
}
