// Builds the C programs beside this file with the distribution's compiler and liburing on demand.
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

/** Returns the path of the program in `folder`. */
export function compiled(name, folder) {
  const binary = join(folder, name);
  const source = fileURLToPath(new URL(`native/${name}.c`, import.meta.url));
  const words = ["-O2", "-o", binary, source, "-luring", "-lpthread"];
  const run = spawnSync("gcc", words, { encoding: "utf8" });
  if (run.status !== 0) throw new Error(`gcc failed on ${source}: ${run.stderr || run.error}`);
  return binary;
}
