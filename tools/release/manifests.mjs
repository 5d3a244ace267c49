/**
 * The common fields of all package.json files. With --write, the packages get them.
 *
 * The root's package.json has the values. Words (description, keywords) and what a package exports are its
 * own.
 */
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { isDeepStrictEqual } from "node:util";

export const ROOT = fileURLToPath(new URL("../..", import.meta.url));
/** In every tarball; npm itself adds package.json and LICENSE. */
const FILES = ["dist", "src", "README.md", "THIRD-PARTY-NOTICES.txt"];
/** In none. They stand behind what is taken in. */
const NOT_FILES = ["!dist/*.txt", "!**/.tsbuildinfo", "!**/fake"];

const readJson = (...path) => JSON.parse(readFileSync(join(ROOT, ...path), "utf8"));
const root = readJson("package.json");

/** Those that are published. @returns {{ folder: string, manifest: any }[]} */
export function packages() {
  return readdirSync(join(ROOT, "packages"))
    .sort()
    .map((folder) => ({ folder, manifest: readJson("packages", folder, "package.json") }))
    .filter(({ manifest }) => manifest.private !== true);
}

/** The manifest with the common fields. */
function completed(folder, manifest) {
  const own = (manifest.files ?? []).filter((name) => ![...FILES, ...NOT_FILES].includes(name));
  return {
    ...manifest,
    version: root.version,
    license: root.license,
    engines: root.engines,
    repository: { ...root.repository, directory: `packages/${folder}` },
    publishConfig: { access: "public" },
    exports: { ...manifest.exports, "./package.json": "./package.json" },
    files: [...FILES, ...own, ...NOT_FILES],
    scripts: { ...manifest.scripts, prepack: "node ../../tools/release/prepack.mjs" },
  };
}

/** @returns {string[]} what is wrong */
export function checkManifests() {
  return packages().flatMap(({ folder, manifest }) => {
    const path = `packages/${folder}/package.json`;
    const wanted = completed(folder, manifest);
    const different = Object.keys(wanted).filter(
      (key) => !isDeepStrictEqual(wanted[key], manifest[key]),
    );
    const missing = ["description", "keywords"].filter((key) => !manifest[key]?.length);
    return [
      ...different.map(
        (key) =>
          `${path}: ${key} is not as in all packages: node tools/release/manifests.mjs --write`,
      ),
      ...missing.map((key) => `${path}: no ${key}`),
    ];
  });
}

function write() {
  for (const { folder, manifest } of packages()) {
    const path = join(ROOT, "packages", folder, "package.json");
    writeFileSync(path, `${JSON.stringify(completed(folder, manifest), null, 2)}\n`);
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  if (process.argv.includes("--write")) write();
  const problems = checkManifests();
  for (const problem of problems) console.error(problem);
  process.exitCode = problems.length === 0 ? 0 : 1;
}
