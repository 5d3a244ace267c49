/** An installed project that is kept for the end-to-end tests: their VM reaches no registry. */
import { cpSync, mkdirSync, readdirSync, rmSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
export const KEPT = join(ROOT, ".cache", "installed");
/** What of a package ends in its tarball. */
const SHIPPED = ["dist", "build", "bin", "examples", "README.md", "package.json"];

function newestChangeMs(path) {
  const entry = statSync(path, { throwIfNoEntry: false });
  if (entry === undefined) return 0;
  if (!entry.isDirectory()) return entry.mtimeMs;
  const inside = readdirSync(path).map((name) => newestChangeMs(join(path, name)));
  return Math.max(entry.mtimeMs, ...inside);
}

export function isKeptNewest() {
  const keptMs = statSync(KEPT, { throwIfNoEntry: false })?.mtimeMs ?? 0;
  const folders = readdirSync(join(ROOT, "packages"));
  const paths = folders.flatMap((name) =>
    SHIPPED.map((part) => join(ROOT, "packages", name, part)),
  );
  return paths.every((path) => newestChangeMs(path) < keptMs);
}

export function keepProject(project) {
  rmSync(KEPT, { recursive: true, force: true });
  mkdirSync(dirname(KEPT), { recursive: true });
  cpSync(project, KEPT, { recursive: true, verbatimSymlinks: true });
}
