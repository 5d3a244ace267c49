/** What is mounted where, as the kernel tells this process. */
import { readFileSync } from "node:fs";

export interface Mounted {
  readonly path: string;
  readonly source: string;
  readonly type: string;
}

/** \040 and the like, as the kernel writes what would end a field. */
function unescaped(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 8)),
  );
}

/** @param text as /proc/self/mountinfo has it */
export function mountsIn(text: string): Mounted[] {
  return text.split("\n").flatMap((line) => {
    const [before, after] = line.split(" - ");
    const path = before?.split(" ")[4];
    const [type, source] = after?.split(" ") ?? [];
    if (path === undefined || type === undefined || source === undefined) return [];
    return [{ path: unescaped(path), source: unescaped(source), type }];
  });
}

/** The uppermost mount at a path; undefined where it is no mount point. */
export function mountAt(path: string): Mounted | undefined {
  return mountsIn(readFileSync("/proc/self/mountinfo", "utf8")).findLast(
    (one) => one.path === path,
  );
}
