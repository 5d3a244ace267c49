/** QEMU's programs of 8.2 or later, which have extended headers. Debian 12 has them in its backports: tools/setup.mjs. */
import { spawnSync } from "node:child_process";
import { join } from "node:path";

const { XDG_CACHE_HOME } = process.env;
const CACHE: string =
  XDG_CACHE_HOME === undefined
    ? join(import.meta.dirname, "..", "..", "..", ".cache")
    : join(XDG_CACHE_HOME, "blksnap");
/** By tools/vm/lib/qemu-utils.mjs. */
const FETCHED: string = join(CACHE, "vm", "qemu-utils", "tree", "usr", "bin");
const OLDEST: readonly [number, number] = [8, 2];

function isNewer(program: string): boolean {
  const { stdout } = spawnSync(program, ["--version"], { encoding: "utf8" });
  const found = /\b(\d+)\.(\d+)\./.exec(stdout ?? "");
  const [major, minor] = [Number(found?.[1] ?? 0), Number(found?.[2] ?? 0)];
  return major > OLDEST[0] || (major === OLDEST[0] && minor >= OLDEST[1]);
}

/** The folder of this system's programs, or of those that were fetched. */
const folder = ["", FETCHED].find((place) => isNewer(join(place, "qemu-nbd")));

/** Why such a test cannot run; undefined: it can. */
export function lacksExtendedQemu(): string | undefined {
  return folder === undefined ? "no QEMU of 8.2 or later: node tools/setup.mjs" : undefined;
}

export function qemuProgram(name: string): string {
  return join(folder ?? "", name);
}
