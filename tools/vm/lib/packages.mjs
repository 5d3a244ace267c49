/** Debian's kernel packages: found and fetched with apt, never installed. */
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { requireProgram, VmError } from "./host.mjs";

const KERNEL = /^linux-image-(\d\S*-cloud-amd64)$/;
/** Releases in their order. Backports of a later one bring the newer kernels. */
const RELEASES = ["bookworm", "trixie", "forky", "duke"];
const KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg";

export function run(program, args, options = {}) {
  const result = spawnSync(program, args, { encoding: "utf8", maxBuffer: 64 << 20, ...options });
  if (result.status === 0) return result.stdout ?? "";
  const detail = (result.stderr || result.error?.message || "").trim();
  throw new VmError(`"${program} ${args.join(" ")}" failed: ${detail}`);
}

export function compareVersions(a, b) {
  return a.localeCompare(b, "en", { numeric: true });
}

/** @returns {string[]} the releases of cloud kernels that apt lists, the oldest first */
export function listedKernels(apt = []) {
  return run(requireProgram("apt-cache", "apt"), [...apt, "pkgnames", "linux-image-"])
    .split("\n")
    .map((name) => KERNEL.exec(name)?.[1])
    .filter((release) => release !== undefined)
    .sort(compareVersions);
}

/**
 * The packages that a kernel is made of: one image, or, as Debian has it since Linux 7, an empty one that wants the
 * image and the modules from two others.
 */
function packagesOf(release, apt) {
  const image = `linux-image-${release}`;
  const parts = ["binary", "modules"].map((part) => `linux-${part}-${release}`);
  const wanted = run(requireProgram("apt-cache", "apt"), [...apt, "depends", image]);
  const split = parts.filter((name) => wanted.includes(`Depends: ${name}\n`));
  return split.length > 0 ? split : [image];
}

/** Downloads packages into the folder, and unpacks them below `tree` there. */
function fetchPackages(names, work, apt) {
  // Without this option apt tries to write here as an unprivileged user, and reports that it cannot.
  const words = [...apt, "-o", "APT::Sandbox::User=root", "-q", "download", ...names];
  run(requireProgram("apt-get", "apt"), words, { cwd: work });
  for (const archive of readdirSync(work).filter((name) => name.endsWith(".deb"))) {
    run(requireProgram("dpkg-deb", "dpkg"), ["-x", join(work, archive), join(work, "tree")]);
    rmSync(join(work, archive));
  }
}

/** Downloads what a kernel is made of into the folder, and unpacks it below `tree` there. */
export function fetchKernel(release, work, apt = []) {
  fetchPackages(packagesOf(release, apt), work, apt);
}

/** The archive that this machine's own apt uses. */
function mirror() {
  const folder = "/etc/apt/sources.list.d";
  const files = readdirSync(folder).filter((name) => name.endsWith(".sources"));
  const texts = files.map((name) => readFileSync(join(folder, name), "utf8"));
  const found = texts.flatMap((text) => text.match(/^URIs:\s*(\S+\/debian)\/?\s*$/m)?.[1] ?? []);
  if (found[0] !== undefined) return found[0];
  throw new VmError(`no ${folder}/*.sources names a Debian archive to look for backports in`);
}

function ownRelease() {
  return /^VERSION_CODENAME=(\w+)$/m.exec(readFileSync("/etc/os-release", "utf8"))?.[1] ?? "";
}

/** Options that have apt work on a state of its own, with the lists of one suite. */
function aptOptions(state, architecture) {
  const foreign = { "APT::Architecture": architecture, "APT::Architectures": architecture };
  const settings = {
    ...(architecture === undefined ? {} : foreign),
    "Dir::Etc::sourcelist": join(state, "list"),
    "Dir::Etc::sourceparts": join(state, "parts"),
    "Dir::State::lists": join(state, "lists"),
    "Dir::Cache": join(state, "cache"),
  };
  return Object.entries(settings).flatMap(([name, value]) => ["-o", `${name}=${value}`]);
}

/** @returns {string[] | undefined} options for apt with this suite's lists; undefined where the archive has none */
function openSuite(suite, state, architecture) {
  for (const name of ["lists/partial", "cache/archives/partial", "parts"]) {
    mkdirSync(join(state, name), { recursive: true });
  }
  writeFileSync(join(state, "list"), `deb [signed-by=${KEYRING}] ${mirror()} ${suite} main\n`);
  const apt = aptOptions(state, architecture);
  const words = [...apt, "-o", "APT::Sandbox::User=root", "update", "-qq"];
  const { status } = spawnSync(requireProgram("apt-get", "apt"), words, { stdio: "ignore" });
  return status === 0 ? apt : undefined;
}

/**
 * Passes the newest kernel of backports, of this release or a later one, to `use`. The lists are in a temporary
 * state: this machine's own apt does not learn of the suite.
 *
 * @param {(release: string, apt: string[]) => void} use
 */
export function withNewestKernel(use) {
  const folder = mkdtempSync(join(tmpdir(), "blksnap-vm-apt-"));
  try {
    const first = Math.max(0, RELEASES.indexOf(ownRelease()));
    const offers = RELEASES.slice(first).flatMap((name) => {
      const suite = `${name}-backports`;
      const apt = openSuite(suite, join(folder, suite));
      return apt === undefined ? [] : listedKernels(apt).map((release) => ({ release, apt }));
    });
    const newest = offers.sort((a, b) => compareVersions(a.release, b.release)).at(-1);
    if (newest === undefined) throw new VmError("no backports with a cloud kernel can be reached");
    use(newest.release, newest.apt);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Downloads packages of this machine's release for another architecture, and unpacks them below `tree`. */
export function fetchForeignPackages(names, architecture, work) {
  const state = mkdtempSync(join(tmpdir(), "blksnap-apt-"));
  try {
    const apt = openSuite(ownRelease(), state, architecture);
    if (apt === undefined)
      throw new VmError(`no archive with packages for ${architecture} is reached`);
    fetchPackages(names, work, apt);
  } finally {
    rmSync(state, { recursive: true, force: true });
  }
}

/** Downloads packages from the backports of this machine's release, and unpacks them below `tree`. */
export function fetchBackports(names, work) {
  const suite = `${ownRelease()}-backports`;
  const state = mkdtempSync(join(tmpdir(), "blksnap-apt-"));
  try {
    const apt = openSuite(suite, state);
    if (apt === undefined) throw new VmError(`${suite} cannot be reached`);
    fetchPackages(names, work, [...apt, "-t", suite]);
  } finally {
    rmSync(state, { recursive: true, force: true });
  }
}
