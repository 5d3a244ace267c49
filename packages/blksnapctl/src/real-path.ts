import { realpathSync } from "node:fs";

/** Where the path leads, without symbolic links; undefined if that cannot be found out. */
export function realPathOf(path: string): string | undefined {
  try {
    return realpathSync(path);
  } catch {
    return undefined;
  }
}
