/**
 * Runs the unit tests of packages/uring for arm64, with the addon built here, under qemu-user.
 *
 * qemu-user has no io_uring (io_uring_setup answers ENOSYS): what needs a ring cannot be run that way, is
 * listed and counted as skipped. Memory, system calls, errors, the loader and the program beside the addon
 * can, and have to pass. Each test that is skipped is named, with the reason.
 */
import { spawn, spawnSync } from "node:child_process";
import {
  chmodSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import {
  arm64Node,
  buildForArm64,
  EMULATOR,
  LIBRARIES,
  PLATFORM,
} from "../../tools/release/cross.mjs";
import { ROOT } from "../../tools/release/manifests.mjs";

const FILE_TIME_LIMIT_MS = 900_000;
/** A file that says this has rings, itself or in a process that it starts, and cannot be run. */
const HAS_RINGS = /\bRing\b|\bPromiseRing\b|Reactor|workers\/|examples|README/;
/** These have some, but tests without one besides. All of them have to run. */
const RUN = [
  "addon-file",
  "apart",
  "errors",
  "memory",
  "memory-collected",
  "memory-shared",
  "system",
];
/** Files that need what the emulator does not pass on. */
const NOT_EMULATED = { "mounts-apart": "ioctls of mount namespaces" };
/** Single tests of files that are run. */
const TESTS_NOT_EMULATED = {
  "discarded pages read as zeroes, and only they": "MADV_DONTNEED_LOCKED of madvise()",
  "memory for the kernel is not in child processes": "flags of mappings in /proc/self/smaps",
};
/** How a test fails that needs a ring: with its error, or the errno of a call through one. */
const NO_RING = /RING_SETUP_FAILED|ENOSYS|---38\b|\(-38\)/;
const PACKAGES = join(ROOT, "packages");
const URING = join(PACKAGES, "uring");

/** A shell script that runs a program of arm64 with all its arguments. */
function emulated(path, program, words = "") {
  writeFileSync(path, `#!/bin/sh\nexec ${EMULATOR} -L ${LIBRARIES} ${program} ${words} "$@"\n`);
  chmodSync(path, 0o755);
}

/** The package as it would be on arm64, with its compiled tests; in the repository, where uvu is found. */
function stage() {
  mkdirSync(join(ROOT, ".cache", "cross"), { recursive: true });
  const stageDir = mkdtempSync(join(ROOT, ".cache", "cross", "stage-"));
  const folder = join(stageDir, "uring");
  mkdirSync(folder);
  // The other packages lie beside it, as they do in packages.
  for (const name of readdirSync(PACKAGES).filter((other) => other !== "uring")) {
    symlinkSync(join(PACKAGES, name), join(stageDir, name));
  }
  for (const name of readdirSync(URING)) {
    if (!["build", "prebuilds", "node_modules"].includes(name)) {
      cpSync(join(URING, name), join(folder, name), { recursive: true });
    }
  }
  const prebuilt = join(folder, "prebuilds", PLATFORM);
  cpSync(buildForArm64(), prebuilt, { recursive: true });
  for (const name of readdirSync(prebuilt).filter((file) => !file.includes("."))) {
    renameSync(join(prebuilt, name), join(prebuilt, `${name}.arm64`));
    emulated(join(prebuilt, name), join(prebuilt, `${name}.arm64`));
  }
  const node = join(folder, "node");
  emulated(node, arm64Node(), `--import ${join(ROOT, "test/arm64/exec-path.mjs")}`);
  return { stageDir, folder, node };
}

function runFile({ folder, node }, subject) {
  return new Promise((done) => {
    const child = spawn(node, ["--expose-gc", join(folder, "test-dist", `${subject}.test.js`)], {
      cwd: folder,
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, NO_COLOR: "1", BLKSNAP_EMULATED_NODE: node },
      timeout: FILE_TIME_LIMIT_MS,
      killSignal: "SIGKILL",
    });
    let output = "";
    child.stdout.on("data", (chunk) => (output += chunk));
    child.stderr.on("data", (chunk) => (output += chunk));
    child.on("close", (status) => done({ subject, status, output }));
  });
}

function count(output, what) {
  return Number(new RegExp(`^\\s*${what}:\\s+(\\d+)`, "m").exec(output)?.[1] ?? 0);
}

const totals = { passed: 0, failed: 0, skipped: 0 };

/** The failed tests of a file, with what was said of each. */
function failures(output) {
  const blocks = output.split(/^ {3}FAIL {2}"/m).slice(1);
  return blocks.map((block) => ({ test: /^(.*?)"$/m.exec(block)?.[1] ?? block, block }));
}

function whySkipped({ test, block }) {
  if (NO_RING.test(block)) return "it needs io_uring";
  return TESTS_NOT_EMULATED[test] && `qemu-user does not have ${TESTS_NOT_EMULATED[test]}`;
}

function judge({ subject, status, output }) {
  const passed = count(output, "Passed");
  const failed = failures(output);
  const unexplained = failed.filter((failure) => whySkipped(failure) === undefined);
  totals.passed += passed;
  if (passed === 0 || unexplained.length > 0 || (status !== 0 && failed.length === 0)) {
    totals.failed += Math.max(1, unexplained.length);
    console.log(`${output}\n✗ arm64 ${subject}: exit status ${status}`);
    return;
  }
  totals.skipped += failed.length;
  console.log(`✓ arm64 ${subject}: ${passed} passed, ${failed.length} SKIPPED`);
  for (const failure of failed) console.log(`    ${failure.test}: ${whySkipped(failure)}`);
}

/** Why no test of a file can be run; undefined for those that are. */
function whyNotRun(subject) {
  if (subject in NOT_EMULATED) return `qemu-user does not pass on ${NOT_EMULATED[subject]}`;
  const source = readFileSync(join(URING, "test", `${subject}.test.ts`), "utf8");
  return !RUN.includes(subject) && HAS_RINGS.test(source) ? "it needs io_uring" : undefined;
}

function skipFile(subject) {
  totals.skipped++;
  console.log(`- arm64 ${subject}: SKIPPED, ${whyNotRun(subject)}`);
}

const compiled = spawnSync(join(ROOT, "node_modules", ".bin", "tsc"), ["-b", join(URING, "test")], {
  stdio: "inherit",
});
if (compiled.status !== 0) process.exit(1);
const world = stage();
try {
  const only = process.argv.slice(2);
  const subjects = readdirSync(join(URING, "test"))
    .map((name) => /^(.*)\.test\.ts$/.exec(name)?.[1])
    .filter((name) => name !== undefined)
    .filter((name) => only.length === 0 || only.some((part) => name.includes(part)));
  for (const subject of subjects.filter(whyNotRun)) skipFile(subject);
  const rest = subjects.filter((subject) => whyNotRun(subject) === undefined);
  const work = async () => {
    for (let subject = rest.shift(); subject !== undefined; subject = rest.shift()) {
      judge(await runFile(world, subject));
    }
  };
  await Promise.all(Array.from({ length: availableParallelism() }, work));
} finally {
  rmSync(world.stageDir, { recursive: true, force: true });
}
console.log(`${totals.passed} passed, ${totals.failed} failed, ${totals.skipped} skipped`);
process.exitCode = totals.failed === 0 && totals.passed > 0 ? 0 : 1;
