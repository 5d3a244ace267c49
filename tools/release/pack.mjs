/** The tarballs of all packages, as they are published. */
import { execFile } from "node:child_process";
import { cpSync, existsSync, mkdirSync, readdirSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { packages, ROOT } from "./manifests.mjs";

const execute = promisify(execFile);
const OUTPUT_MAX_BYTES = 64 << 20;
/** npm of this Node, whatever is first in the PATH. */
const NPM = join(dirname(process.execPath), "npm");
export const npm = existsSync(NPM) ? NPM : "npm";

/** What is built of a package with native code, and is not only for those who debug it. */
function binariesOnly(source) {
  return !source.endsWith(".debug");
}

/**
 * Puts binaries to where the tarball has them, and nothing else there.
 * @param {string} packageDir of a package with native code
 * @param {Record<string, string>} built folders with what is built, by platform: { "linux-arm64-glibc": … }
 */
function fillPrebuilds(packageDir, built) {
  const folder = join(packageDir, "prebuilds");
  rmSync(folder, { recursive: true, force: true });
  for (const [platform, from] of Object.entries(built)) {
    cpSync(from, join(folder, platform), { recursive: true, filter: binariesOnly });
  }
}

/** Removes from dist what was compiled from a source that is gone; the compiler leaves it there. */
function removeStale(packageDir) {
  const dist = join(packageDir, "dist");
  for (const name of readdirSync(dist, { recursive: true })) {
    const [, module] = /^(?!bundle\/)(.*?)\.(?:js|d\.ts)(?:\.map)?$/.exec(name) ?? [];
    const isStale = module !== undefined && !existsSync(join(packageDir, "src", `${module}.ts`));
    if (isStale) rmSync(join(dist, name));
  }
}

/**
 * Packs all packages; they are built.
 * @param {string} into a folder
 * @param {{ built?: Record<string, string> }} [options] binaries of other platforms, by platform
 * @returns {Promise<{ name: string, folder: string, manifest: any, path: string, files: string[] }[]>}
 */
export async function packAll(into, { built = {} } = {}) {
  mkdirSync(into, { recursive: true });
  const all = packages();
  for (const { folder } of all) {
    const packageDir = join(ROOT, "packages", folder);
    removeStale(packageDir);
    if (!existsSync(join(packageDir, "native"))) continue;
    const own = `${process.platform}-${process.arch}-glibc`;
    fillPrebuilds(packageDir, { [own]: join(packageDir, "build", "Release"), ...built });
  }
  // Not --workspaces: that packs the private ones, too.
  const workspaces = all.flatMap(({ manifest }) => ["--workspace", manifest.name]);
  const args = ["pack", ...workspaces, "--json", "--pack-destination", into];
  const { stdout } = await execute(npm, args, { cwd: ROOT, maxBuffer: OUTPUT_MAX_BYTES });
  // npm prints an array or, since version 12, an object.
  const packed = Object.values(JSON.parse(stdout));
  return all.map(({ folder, manifest }) => {
    const { filename, files } = packed.find(({ name }) => name === manifest.name);
    return {
      name: manifest.name,
      folder,
      manifest,
      path: join(into, filename.replace("@", "").replace("/", "-")),
      files: files.map(({ path }) => path),
    };
  });
}
