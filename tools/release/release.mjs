/**
 * Makes everything that a release publishes, into release/VERSION; without --dry-run, publishes it.
 *
 *   release/0.1.0/*.tgz                        the tarballs of all packages, with binaries for all platforms
 *   release/0.1.0/native/PLATFORM/             these binaries with their debug information, for debuggers
 *   release/0.1.0/SHA256SUMS                   of all of it; `sha256sum -c` checks it
 *   release/0.1.0/MANIFEST.json                what is published, in its order, and the commit
 */
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { checkBinaries } from "./binaries.mjs";
import { PLATFORM as ARM64, buildForArm64 } from "./cross.mjs";
import { checkTarballs } from "./lint-packages.mjs";
import { ROOT } from "./manifests.mjs";
import { npm, packAll } from "./pack.mjs";

const USAGE = `Usage: npm run release -- [OPTION]...

Makes release/VERSION: tarballs of all packages, debug information, checksums. Then publishes the tarballs to
npm's registry, those that others need first; one that is there already is passed over.

  --dry-run       publish nothing
  --tag TAG       npm's dist-tag (latest)
  --help`;
const X64 = "linux-x64-glibc";

class ReleaseError extends Error {}

function git(...args) {
  return execFileSync("git", args, { cwd: ROOT, encoding: "utf8" }).trim();
}

/** Those that others depend on come first: no package can be installed whose parts are not there yet. */
export function publishOrder(tarballs) {
  const ordered = [];
  const visit = (tarball) => {
    if (ordered.includes(tarball)) return;
    for (const name of Object.keys(tarball.manifest.dependencies ?? {})) {
      const needed = tarballs.find((other) => other.name === name);
      if (needed !== undefined) visit(needed);
    }
    ordered.push(tarball);
  };
  for (const tarball of tarballs) visit(tarball);
  return ordered;
}

/** Binaries of all platforms by platform, stripped, with debug information beside them. */
function buildAll() {
  if (process.platform !== "linux" || process.arch !== "x64") {
    throw new ReleaseError("a release is made on x64: from there both platforms are built");
  }
  const built = join(ROOT, ".cache", "cross", "build", X64);
  rmSync(built, { recursive: true, force: true });
  const script = join(ROOT, "packages", "uring", "native", "build.mjs");
  execFileSync(process.execPath, [script, "--output", built], { stdio: "inherit" });
  return { [X64]: built, [ARM64]: buildForArm64() };
}

function filesBelow(folder) {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .sort();
}

function writeSums(folder) {
  const lines = filesBelow(folder).map((path) => {
    const sum = createHash("sha256").update(readFileSync(path)).digest("hex");
    return `${sum}  ${path.slice(folder.length + 1)}\n`;
  });
  writeFileSync(join(folder, "SHA256SUMS"), lines.join(""));
}

/** @returns {Promise<any[]>} the tarballs, in the order in which they are published */
async function make(folder, version) {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  const built = buildAll();
  const problems = Object.entries(built).flatMap(([platform, from]) => {
    cpSync(from, join(folder, "native", platform), { recursive: true });
    return checkBinaries(from, platform);
  });
  const tarballs = publishOrder(await packAll(folder, { built }));
  problems.push(...(await checkTarballs(tarballs)));
  if (problems.length > 0) throw new ReleaseError(problems.join("\n"));
  const published = tarballs.map(({ name, path }) => ({ name, version, tarball: basename(path) }));
  const manifest = { version, commit: git("rev-parse", "HEAD"), packages: published };
  writeFileSync(join(folder, "MANIFEST.json"), `${JSON.stringify(manifest, null, 2)}\n`);
  writeSums(folder);
  return tarballs;
}

/** As the registry has it now: npm's cache may be outdated, or of another registry at the same address. */
function isPublished({ name, manifest }, options) {
  const now = ["--no-prefer-offline", "--prefer-online"];
  try {
    const args = ["view", `${name}@${manifest.version}`, "version", ...options, ...now];
    return (
      execFileSync(npm, args, { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }) !== ""
    );
  } catch {
    return false;
  }
}

/** @param {string[]} options for npm */
export function publish(tarballs, options = []) {
  for (const tarball of tarballs) {
    if (isPublished(tarball, options)) {
      console.log(`${tarball.name} ${tarball.manifest.version} is published already`);
      continue;
    }
    execFileSync(npm, ["publish", tarball.path, ...options], { stdio: "inherit" });
  }
}

function assertReleasable(version) {
  if (git("status", "--porcelain") !== "") throw new ReleaseError("there are uncommitted changes");
  if (!git("tag", "--points-at", "HEAD").split("\n").includes(`v${version}`)) {
    throw new ReleaseError(`the commit has no tag v${version}: git tag v${version}`);
  }
}

async function release({ "dry-run": isDry, tag }) {
  const { version } = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8"));
  if (!isDry) assertReleasable(version);
  const folder = join(ROOT, "release", version);
  const tarballs = await make(folder, version);
  for (const path of filesBelow(folder)) console.log(path.slice(ROOT.length));
  if (isDry) console.log(`Nothing is published; a release publishes ${tarballs.length} tarballs.`);
  else publish(tarballs, ["--tag", tag]);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  try {
    const { values } = parseArgs({
      options: {
        "dry-run": { type: "boolean" },
        tag: { type: "string", default: "latest" },
        help: { type: "boolean", short: "h" },
      },
    });
    if (values.help) console.log(USAGE);
    else await release(values);
  } catch (error) {
    console.error(
      `release: ${error.code?.startsWith?.("ERR_PARSE_ARGS") ? `${error.message}\n\n${USAGE}` : error.message}`,
    );
    process.exitCode = 1;
  }
}
