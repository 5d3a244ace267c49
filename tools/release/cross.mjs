/**
 * Builds the native code for arm64 on another machine, and has what runs it there: Debian's cross compiler,
 * its liburing for arm64, an arm64 Node of npm's registry, and qemu-user. What it builds is kept in .cache/cross.
 */
import { execFileSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import semver from "semver";
import { createFolderAtOnce, fetchForeignPackages } from "../vm/index.mjs";
import { ROOT } from "./manifests.mjs";
import { nodeBinary } from "./node-binary.mjs";

export const PLATFORM = "linux-arm64-glibc";
/** The C and C++ libraries of Debian's cross compiler. */
export const LIBRARIES = "/usr/aarch64-linux-gnu";
export const EMULATOR = "qemu-aarch64-static";
const CACHE = join(ROOT, ".cache", "cross");

/** A folder of the cache that is made when it is not there. */
function cached(name, fill) {
  const folder = join(CACHE, name);
  mkdirSync(CACHE, { recursive: true });
  if (!existsSync(folder)) createFolderAtOnce(folder, fill);
  return folder;
}

function liburing() {
  return cached("liburing-arm64", (folder) => {
    const work = join(folder, "work");
    mkdirSync(work);
    fetchForeignPackages(["liburing-dev"], "arm64", work);
    cpSync(join(work, "tree/usr/include"), join(folder, "include"), { recursive: true });
    cpSync(join(work, "tree/usr/lib/aarch64-linux-gnu"), join(folder, "lib"), {
      recursive: true,
      // Links of the shared library lead to a package that is not here.
      filter: (path) => !path.endsWith(".so"),
    });
    rmSync(work, { recursive: true });
  });
}

/** @returns {string} the oldest arm64 Node on which the packages run */
export function arm64Node() {
  const { engines } = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8"));
  const version = semver.minVersion(engines.node).version;
  return nodeBinary("arm64", version).path;
}

/** @returns {string} the folder with the addon and its program for arm64, built now */
export function buildForArm64() {
  const output = join(CACHE, "build", PLATFORM);
  rmSync(output, { recursive: true, force: true });
  const script = join(ROOT, "packages", "uring", "native", "build.mjs");
  const args = [script, "--arch", "arm64", "--output", output, "--liburing", liburing()];
  execFileSync(process.execPath, args, { stdio: "inherit" });
  return output;
}
