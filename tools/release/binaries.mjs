/** Checks that binaries run on older machines than this one. */
import { execFileSync } from "node:child_process";
import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import semver from "semver";

/** README's promise: glibc of RHEL 9 and Amazon Linux 2023, libstdc++ of their GCC 11. */
const NEWEST = { GLIBC: "2.34", GLIBCXX: "3.4.29", CXXABI: "1.3.13" };
const LIBRARIES = /^(libc|libm|libstdc\+\+|libgcc_s|ld-linux-[\w-]+)\.so\.\d+$/;
const MACHINES = { x64: "Advanced Micro Devices X86-64", arm64: "AArch64" };
const SIZE_MAX_BYTES = 256 * 1024;

const readelf = (path, option) =>
  execFileSync("readelf", ["--wide", option, path], { encoding: "utf8" });
const comparable = (version) => semver.coerce(version);

function problemsOf(path, platform) {
  const problems = [];
  const machine = /Machine:\s+(.*)/.exec(readelf(path, "--file-header"))?.[1];
  if (machine !== MACHINES[platform.split("-")[1]]) problems.push(`is for ${machine}`);
  for (const [, library] of readelf(path, "--dynamic").matchAll(/\(NEEDED\).*\[(.*)\]/g)) {
    if (!LIBRARIES.test(library)) problems.push(`needs ${library}`);
  }
  const versions = readelf(path, "--version-info").matchAll(
    /Name: (GLIBC|GLIBCXX|CXXABI)_([\d.]+)/g,
  );
  for (const [, name, version] of versions) {
    if (semver.gt(comparable(version), comparable(NEWEST[name]))) {
      problems.push(`needs ${name}_${version}, and machines with ${NEWEST[name]} are to run it`);
    }
  }
  if (readelf(path, "--section-headers").includes(" .symtab ")) problems.push("is not stripped");
  const { size } = statSync(path);
  if (size > SIZE_MAX_BYTES) problems.push(`has ${size} bytes, more than ${SIZE_MAX_BYTES}`);
  return problems.map((problem) => `${path} ${problem}`);
}

/** @returns {string[]} problems of the binaries in a folder */
export function checkBinaries(folder, platform) {
  return readdirSync(folder)
    .filter((name) => !name.endsWith(".debug"))
    .flatMap((name) => problemsOf(join(folder, name), platform));
}
