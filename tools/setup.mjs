/**
 * Prepares a fresh clone: Debian packages, npm packages, build, VM kernel.
 *
 * Each part looks for what it provides (a program, a header) and does nothing when that is there,
 * so that scripts call this first each time. Node's own modules only: it runs before "npm ci".
 */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import {
  ensureKernel,
  ensureNewerQemuUtils,
  findProgram,
  hostHasUblk,
  isStaticProgram,
  searchPath,
  VmError,
} from "./vm/index.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));
const OLDEST_NODE = [20, 19];
const FAILURE_LINES_SHOWN = 40;

const USAGE = `Usage: node tools/setup.mjs [--quiet] [--no-vm | --demo] [--cross]

Installs what is missing: Debian packages (as root, with apt), npm packages, the build, and
the kernel of the test VM where this machine itself has no ublk.

  --quiet   say something only when something is done
  --no-vm   leave out what only the VM needs
  --demo    only what the demo needs; go on without a VM where none can be had
  --cross   bring what builds for arm64 and runs it here, too
  --help

BLKSNAP_SETUP_SKIP_APT=1 leaves Debian packages alone.`;

const program = (name) => () => findProgram(name) !== undefined;

/** Requirements, how to check each, and the Debian package that provides it. */
const BUILD_NEEDS = [
  { name: "g++", debian: "g++", isThere: program("g++") },
  {
    name: "liburing.h",
    debian: "liburing-dev",
    isThere: () => existsSync("/usr/include/liburing.h"),
  },
];
const DEMO_NEEDS = [{ name: "mkfs.ext4", debian: "e2fsprogs", isThere: program("mkfs.ext4") }];
const TEST_NEEDS = [
  { name: "fio", debian: "fio", isThere: program("fio") },
  ...DEMO_NEEDS,
  { name: "mkfs.xfs", debian: "xfsprogs", isThere: program("mkfs.xfs") },
  { name: "mkfs.btrfs", debian: "btrfs-progs", isThere: program("mkfs.btrfs") },
  { name: "dmsetup", debian: "dmsetup", isThere: program("dmsetup") },
  { name: "modprobe", debian: "kmod", isThere: program("modprobe") },
  { name: "losetup", debian: "mount", isThere: program("losetup") },
  { name: "setpriv", debian: "util-linux", isThere: program("setpriv") },
  { name: "nbdinfo", debian: "libnbd-bin", isThere: program("nbdinfo") },
  { name: "nbd-client", debian: "nbd-client", isThere: program("nbd-client") },
  { name: "qemu-img", debian: "qemu-utils", isThere: program("qemu-img") },
];
const VM_NEEDS = [
  { name: "qemu", debian: "qemu-system-x86", isThere: program("qemu-system-x86_64") },
  { name: "virtiofsd", debian: "qemu-system-common", isThere: program("virtiofsd") },
  {
    name: "static busybox",
    debian: "busybox-static",
    isThere: () => isStaticProgram(findProgram("busybox")),
  },
  { name: "xz", debian: "xz-utils", isThere: program("xz") },
  { name: "zstd", debian: "zstd", isThere: program("zstd") },
];

const CROSS_NEEDS = [
  {
    name: "aarch64-linux-gnu-g++",
    debian: "g++-aarch64-linux-gnu",
    isThere: program("aarch64-linux-gnu-g++"),
  },
  { name: "readelf", debian: "binutils", isThere: program("readelf") },
  {
    name: "qemu-aarch64-static",
    debian: "qemu-user-static",
    isThere: program("qemu-aarch64-static"),
  },
];

class SetupError extends Error {}

function say(text) {
  process.stdout.write(`setup: ${text}\n`);
}

/** Runs a command silently; its last lines are shown when it fails. */
function run(command, { env = {} } = {}) {
  const [file, ...args] = command;
  const result = spawnSync(file, args, {
    cwd: root,
    encoding: "utf8",
    maxBuffer: 256 << 20,
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, PATH: [dirname(process.execPath), ...searchPath()].join(":"), ...env },
  });
  if (result.status === 0) return;
  const output = `${result.stdout ?? ""}${result.stderr ?? ""}${result.error?.message ?? ""}`;
  const tail = output.trimEnd().split("\n").slice(-FAILURE_LINES_SHOWN).join("\n  ");
  throw new SetupError(`"${command.join(" ")}" failed:\n  ${tail}`);
}

function runShowingTime(text, command, options) {
  say(`${text} ...`);
  const startMs = Date.now();
  run(command, options);
  say(`${text}: done in ${((Date.now() - startMs) / 1000).toFixed(1)} s`);
}

function checkNode() {
  const [major, minor] = process.versions.node.split(".").map(Number);
  const isNewEnough =
    major > OLDEST_NODE[0] || (major === OLDEST_NODE[0] && minor >= OLDEST_NODE[1]);
  if (isNewEnough) return;
  throw new SetupError(
    `Node ${OLDEST_NODE.join(".")} or newer is needed; this is ${process.version}`,
  );
}

function apt(args, text) {
  runShowingTime(text, ["apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=300", ...args], {
    env: { DEBIAN_FRONTEND: "noninteractive" },
  });
}

function updateLists() {
  apt(["update"], "getting the lists of Debian packages");
}

function hasLists() {
  const folder = "/var/lib/apt/lists";
  return existsSync(folder) && readdirSync(folder).some((name) => /_Packages(\.\w+)?$/.test(name));
}

function installDebianPackages(needs) {
  const missing = needs.filter(({ isThere }) => !isThere());
  if (missing.length === 0) return;
  const packages = [...new Set(missing.map(({ debian }) => debian))];
  const mayInstall =
    process.getuid?.() === 0 && findProgram("apt-get") && !process.env.BLKSNAP_SETUP_SKIP_APT;
  if (!mayInstall) {
    const lines = missing.map(({ name, debian }) => `  ${name} (Debian package ${debian})`);
    throw new SetupError(
      `these are missing and only root with apt can have them installed:\n${lines.join("\n")}\n` +
        `On Debian or Ubuntu: apt-get install --no-install-recommends ${packages.join(" ")}`,
    );
  }
  const install = () =>
    apt(
      ["install", "--no-install-recommends", ...packages],
      `installing Debian packages ${packages.join(" ")}`,
    );
  if (!hasLists()) updateLists();
  try {
    install();
  } catch {
    // Lists that are too old name versions that the mirror no longer has.
    updateLists();
    install();
  }
  const still = missing.filter(({ isThere }) => !isThere()).map(({ name }) => name);
  if (still.length > 0) throw new SetupError(`still missing after apt: ${still.join(", ")}`);
}

/** npm's record of what is installed, compared with the lock: a manually installed tree counts, too. */
function installedMatches(lockText) {
  const record = join(root, "node_modules", ".package-lock.json");
  if (!existsSync(record)) return false;
  const installed = JSON.parse(readFileSync(record, "utf8")).packages;
  return Object.entries(JSON.parse(lockText).packages)
    .filter(([path, { optional }]) => path.startsWith("node_modules/") && !optional)
    .every(([path, { version }]) => installed[path]?.version === version);
}

function installNpmPackages() {
  const stamp = join(root, "node_modules", ".blksnap-lock-digest");
  const lockText = readFileSync(join(root, "package-lock.json"), "utf8");
  const digest = createHash("sha256").update(lockText).digest("hex");
  if (existsSync(stamp) && readFileSync(stamp, "utf8") === digest) return;
  if (!installedMatches(lockText)) {
    const besideNode = join(dirname(process.execPath), "npm");
    const npm = existsSync(besideNode) ? besideNode : "npm";
    runShowingTime("installing npm packages", [npm, "ci", "--no-audit", "--no-fund"]);
  }
  writeFileSync(stamp, digest);
}

function newestChangeMs(path) {
  const entry = statSync(path, { throwIfNoEntry: false });
  if (!entry) return 0;
  if (!entry.isDirectory()) return entry.mtimeMs;
  // A folder's own time shows removed files.
  return readdirSync(path)
    .map((name) => newestChangeMs(join(path, name)))
    .reduce((newest, time) => Math.max(newest, time), entry.mtimeMs);
}

function packageFolders() {
  return readdirSync(join(root, "packages")).map((name) => join(root, "packages", name));
}

function isBuilt(folder) {
  const hasDist = !existsSync(join(folder, "src")) || existsSync(join(folder, "dist"));
  const hasAddon =
    !existsSync(join(folder, "native")) || existsSync(join(folder, "build", "Release"));
  return hasDist && hasAddon;
}

const hasTypes = (folder) => existsSync(join(folder, "tsconfig.json"));

/** Whether building the package is more than compiling it. */
function hasMoreToBuild(folder) {
  const { scripts } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
  return scripts["build:native"] !== undefined || (scripts.build ?? "tsc -b") !== "tsc -b";
}

/** One compiler run for all packages: starting one for each, below npm, takes longer than its work. */
function buildPackages() {
  const bin = (name) => [process.execPath, join(root, "node_modules", ".bin", name)];
  const compiled = packageFolders().filter(hasTypes);
  runShowingTime("compiling", [...bin("tsc"), "-b", ...compiled]);
  const others = packageFolders()
    .filter(hasMoreToBuild)
    .map((folder) => relative(root, folder));
  runShowingTime("building", [
    ...[...bin("nx"), "run-many", "-t", "build", "build:native", "--output-style=static"],
    ...["--excludeTaskDependencies", "--projects", others.join(",")],
  ]);
}

function build() {
  const stamp = join(root, ".cache", "setup", "built");
  const sources = [
    ...packageFolders().flatMap((folder) =>
      ["src", "native", "package.json", "tsconfig.json"].map((name) => join(folder, name)),
    ),
    ...["tsconfig.base.json", "nx.json", "package-lock.json"].map((name) => join(root, name)),
  ];
  const builtMs = statSync(stamp, { throwIfNoEntry: false })?.mtimeMs ?? 0;
  const isUpToDate =
    packageFolders().every(isBuilt) && sources.every((path) => newestChangeMs(path) < builtMs);
  if (isUpToDate) return;
  // The time before the build counts, so that an edit meanwhile is built later.
  const startedAt = new Date();
  buildPackages();
  mkdirSync(dirname(stamp), { recursive: true });
  writeFileSync(stamp, "");
  utimesSync(stamp, startedAt, startedAt);
}

function getKernel() {
  try {
    ensureKernel({ onProgress: say });
  } catch (error) {
    if (process.getuid?.() !== 0 || process.env.BLKSNAP_SETUP_SKIP_APT) throw error;
    updateLists();
    ensureKernel({ onProgress: say });
  }
}

/** Only tests need them, and say so if they are missing: the rest works without. */
function getNewerQemuUtils() {
  if (process.env.BLKSNAP_SETUP_SKIP_APT || !findProgram("apt-get")) return;
  try {
    ensureNewerQemuUtils({ onProgress: say });
  } catch (error) {
    say(`${error.message}; tests of extended headers need them`);
  }
}

/** The demo does without: it says what it uses instead. */
function tryVm(needsVm) {
  try {
    installDebianPackages([...DEMO_NEEDS, ...(needsVm ? VM_NEEDS : [])]);
    if (needsVm) getKernel();
  } catch (error) {
    if (!(error instanceof SetupError || error instanceof VmError) && error.syscall === undefined) {
      throw error;
    }
    say(`no VM: ${error.message}`);
  }
}

function setUpDemo() {
  installDebianPackages(BUILD_NEEDS);
  installNpmPackages();
  build();
  tryVm(!hostHasUblk());
}

function setUp(options) {
  checkNode();
  if (options.includes("--demo")) return setUpDemo();
  const needsVm = !options.includes("--no-vm") && !hostHasUblk();
  installDebianPackages([
    ...BUILD_NEEDS,
    ...TEST_NEEDS,
    ...(needsVm ? VM_NEEDS : []),
    ...(options.includes("--cross") ? CROSS_NEEDS : []),
  ]);
  installNpmPackages();
  build();
  if (needsVm) getKernel();
  getNewerQemuUtils();
  if (!options.includes("--quiet")) say("everything is there");
}

const FLAGS = ["--quiet", "--no-vm", "--demo", "--cross", "--help"];
const options = process.argv.slice(2);
const unknown = options.find((word) => !FLAGS.includes(word));
if (options.includes("--help")) process.stdout.write(`${USAGE}\n`);
else if (unknown) {
  process.stderr.write(`setup: unknown option ${unknown}\n\n${USAGE}\n`);
  process.exitCode = 2;
} else {
  try {
    setUp(options);
  } catch (error) {
    process.stderr.write(`setup: ${error.message}\n`);
    process.exitCode = 1;
  }
}
