/** Replaces small files in the state directory, which is memory. */
import { renameSync, rmSync, writeFileSync } from "node:fs";

/** Atomic: a reader, such as the daemon after a kill, finds the old text or the new one. @throws an error of node:fs */
export function replaceFile(path: string, text: string): void {
  const draft = `${path}.draft`;
  try {
    writeFileSync(draft, text, { mode: 0o600 });
    renameSync(draft, path);
  } catch (error) {
    rmSync(draft, { force: true });
    throw error;
  }
}
