/**
 * Checks what the packages would publish: manifests, what is in the tarballs, exports and types as importers
 * see them (publint, attw), and that no dependency wants a newer Node than `engines` says.
 */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { checkPackage, createPackageFromTarballData } from "@arethetypeswrong/core";
import { publint } from "publint";
import { formatMessage } from "publint/utils";
import semver from "semver";
import { checkManifests, ROOT } from "./manifests.mjs";
import { packAll } from "./pack.mjs";

/** How packages are resolved that are ES modules only, with exports. */
const RESOLUTIONS = ["node16-esm", "bundler"];
const IN_ALL = ["package.json", "README.md", "LICENSE", "THIRD-PARTY-NOTICES.txt", "dist/index.js"];
const UNWANTED =
  /(^|\/)(\.tsbuildinfo|fakes?\/.*|test(-dist)?\/.*|node_modules\/.*|.*\.(debug|o|tgz))$/;
/** Our test doubles for others' tests: only behind an export that says so. */
const DOUBLES = /(^|\/)(testing|fakes?)\//;

/** Out of a source of ours: what loads the files of a bundle is not. */
function isCompiled(path) {
  return /^dist\/.*\.js$/.test(path) && !/^dist\/bundle\/[a-z-]+\.js$/.test(path);
}

function contentProblems({ name, manifest, files }) {
  const set = new Set(files);
  const missing = IN_ALL.filter((path) => !set.has(path));
  const unmapped = files.filter((path) => isCompiled(path) && !set.has(`${path}.map`));
  const hasTesting = "./testing" in manifest.exports;
  const unwanted = files.filter(
    (path) => UNWANTED.test(path) || (DOUBLES.test(path) && !hasTesting),
  );
  return [
    ...missing.map((path) => `${name}: ${path} is missing in the tarball`),
    ...unmapped.map((path) => `${name}: ${path} has no source map`),
    ...unwanted.map((path) => `${name}: ${path} does not belong into the tarball`),
  ];
}

/** Modules that a module of a package leads to, inside the package. */
function reached(folder, entry, found = new Set()) {
  if (found.has(entry)) return found;
  found.add(entry);
  const text = readFileSync(join(ROOT, "packages", folder, entry), "utf8");
  for (const [, path] of text.matchAll(/(?:from|import\(?)\s*"(\.{1,2}\/[^"]+)"/g)) {
    reached(folder, join(dirname(entry), path), found);
  }
  return found;
}

function doublesInMainExport({ name, folder, manifest }) {
  return [...reached(folder, manifest.exports["."].default)]
    .filter((path) => DOUBLES.test(path))
    .map((path) => `${name}: the main export leads to ${path}`);
}

async function publintProblems({ name, manifest, path }) {
  const tarball = readFileSync(path);
  const { messages } = await publint({
    pack: {
      tarball: tarball.buffer.slice(tarball.byteOffset, tarball.byteOffset + tarball.length),
    },
    strict: true,
  });
  return messages.map((message) => `${name}: publint: ${formatMessage(message, manifest)}`);
}

async function typeProblems({ name, path }) {
  const { problems = [] } = await checkPackage(
    createPackageFromTarballData(new Uint8Array(readFileSync(path))),
  );
  return problems
    .filter(
      ({ resolutionKind }) => resolutionKind === undefined || RESOLUTIONS.includes(resolutionKind),
    )
    .map((problem) => `${name}: attw: ${JSON.stringify(problem)}`);
}

/** What is installed with our packages, as the lock has it, must run on the oldest Node that they name. */
function engineProblems() {
  const lock = JSON.parse(readFileSync(join(ROOT, "package-lock.json"), "utf8")).packages;
  const oldest = semver.minVersion(lock[""].engines.node);
  return Object.entries(lock)
    .filter(([, { dev, engines }]) => !dev && engines?.node !== undefined)
    .filter(([, { engines }]) => !semver.satisfies(oldest, engines.node))
    .map(
      ([path, { version, engines }]) =>
        `${path} ${version} wants Node ${engines.node}; name an older one, or one of those that bring it, ` +
        "as a dependency of the package that needs it",
    );
}

/** @returns {Promise<string[]>} what is wrong with packed packages */
export async function checkTarballs(tarballs) {
  const problems = [...checkManifests(), ...engineProblems()];
  for (const tarball of tarballs) {
    problems.push(...contentProblems(tarball), ...doublesInMainExport(tarball));
    problems.push(...(await publintProblems(tarball)), ...(await typeProblems(tarball)));
  }
  return problems;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const folder = mkdtempSync(join(tmpdir(), "blksnap-pack-"));
  try {
    const tarballs = await packAll(folder);
    const problems = await checkTarballs(tarballs);
    for (const problem of problems) console.error(problem);
    console.log(`lint-packages: ${tarballs.length} packages, ${problems.length} problems`);
    process.exitCode = problems.length === 0 ? 0 : 1;
  } finally {
    rmSync(folder, { recursive: true });
  }
}
