/** The end-to-end tests: scenarios on the real ublk driver, in a VM. See --help. */
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { hostHasUblk, runInVm, VmError } from "../../tools/vm/index.mjs";
import { timeLimitMs } from "./lib/limits.mjs";
import { GROUPS, VARIABLES } from "./plan.mjs";
import { Report } from "./report.mjs";

const USAGE = `Usage: node test/e2e/run.mjs [OPTION]...

Runs the end-to-end scenarios in VMs with ublk and prints a line per test.

  --only PATTERN   only files whose name matches the regular expression
  --list           print the files and end
  --keep-going     run the other files after one has failed
  --kernel SERIES  run them on this kernel of tools/vm alone: "newest" for that of the backports
  --host           run on this machine instead of a VM: it needs ublk and root, and gets test disks
  --help

In the environment:

${Object.entries(VARIABLES)
  .map(([name, what]) => `  ${name.padEnd(22)} ${what}`)
  .join("\n")}`;

const HERE = dirname(fileURLToPath(import.meta.url));
const REPOSITORY = resolve(HERE, "../..");
const RUNNER = join(HERE, "guest/runner.mjs");
const PACKAGES = join(REPOSITORY, "packages");
const VM_LIMIT_MS = timeLimitMs(3_600_000);
/** How often one group is begun again because the emulator broke the VM (tools/vm, emulatorFault). */
const EMULATOR_FAULTS_BORNE = 2;

function fail(text) {
  console.error(`e2e: ${text}`);
  process.exit(1);
}

function options() {
  try {
    return parseArgs({
      options: {
        only: { type: "string" },
        list: { type: "boolean" },
        "keep-going": { type: "boolean" },
        kernel: { type: "string" },
        host: { type: "boolean" },
        help: { type: "boolean", short: "h" },
      },
    }).values;
  } catch (error) {
    return fail(`${error.message}. See --help`);
  }
}

/** Where packages test what of them needs ublk: packages/NAME/vm-test/SUBJECT.vm-test.mjs. */
function packageTestFolders() {
  return readdirSync(PACKAGES)
    .map((name) => join(PACKAGES, name, "vm-test"))
    .filter((folder) => existsSync(folder));
}

function packageTests() {
  return packageTestFolders()
    .flatMap((folder) => readdirSync(folder).map((name) => join(folder, name)))
    .filter((path) => path.endsWith(".vm-test.mjs"));
}

function pathOf(file) {
  const folder = file.includes("/") ? PACKAGES : join(HERE, "scenarios");
  return join(folder, `${file}.mjs`);
}

/** The plan's groups with full paths, and the packages' own tests as one more. */
function plannedGroups() {
  const known = GROUPS.flatMap(({ files }) => files);
  const missing = readdirSync(join(HERE, "scenarios"))
    .map((name) => basename(name, ".mjs"))
    .filter((name) => !known.includes(name));
  if (missing.length > 0) fail(`plan.mjs does not name: ${missing.join(", ")}`);
  return [
    { name: "packages", ownDaemons: true, files: packageTests() },
    ...GROUPS.map((group) => ({
      ...group,
      files: group.files.map(pathOf),
    })),
  ];
}

/** A variable that is not passed into the VM would be ignored there in silence. */
function assertVariablesKnown() {
  for (const folder of [join(HERE, "scenarios"), join(HERE, "lib"), ...packageTestFolders()]) {
    for (const name of readdirSync(folder)) {
      const path = join(folder, name);
      for (const [, variable] of readFileSync(path, "utf8").matchAll(/process\.env\.(\w+)/g)) {
        const known = variable in VARIABLES || /^(E2E_|PATH$)/.test(variable);
        if (!known) fail(`plan.mjs does not name the variable ${variable} of ${name}`);
      }
    }
  }
}

/** Which files run, and where: on a kernel that is asked for, or on this machine, the groups of other kernels add nothing. */
function select(groups, { only, kernel, host }) {
  const pattern = new RegExp(only ?? "");
  const wanted = kernel === undefined && !host ? groups : groups.filter((group) => !group.kernel);
  return wanted
    .map((group) => ({ ...group, kernel: kernel ?? group.kernel }))
    .map((group) => ({
      ...group,
      files: group.files.filter((file) => pattern.test(basename(file))),
    }))
    .filter(({ files }) => files.length > 0);
}

function guestVariables(given, group) {
  return {
    ...(group.ownDaemons ? {} : { E2E_SHARED_DAEMON: "1" }),
    ...Object.fromEntries(
      Object.keys(VARIABLES).flatMap((name) =>
        process.env[name] ? [[name, process.env[name]]] : [],
      ),
    ),
    ...(given["keep-going"] ? { E2E_KEEP_GOING: "1" } : {}),
  };
}

/** @returns {Promise<{why: string, console: string, emulatorFault: boolean} | undefined>} how it ended, if not by itself */
async function runGroupInVm(command, env, shareDir, kernelSeries) {
  const result = await runInVm({
    command,
    env,
    kernelSeries,
    cwd: REPOSITORY,
    shareDir,
    timeLimitMs: VM_LIMIT_MS,
    signal: interrupted.signal,
    onProgress: (text) => console.error(`vm: ${text}`),
  });
  if (result.aborted) return undefined;
  if (result.status === 0) return undefined;
  const why = result.timedOut
    ? `the VM did not end within ${VM_LIMIT_MS / 1000} s`
    : result.status === null
      ? "the VM died"
      : `the VM's runner ended with status ${result.status}`;
  return { why, console: result.console, emulatorFault: result.emulatorFault };
}

function runGroupHere(command, env) {
  return new Promise((done) => {
    const child = spawn(command[0], command.slice(1), {
      cwd: REPOSITORY,
      stdio: "inherit",
      signal: interrupted.signal,
      env: { ...process.env, ...env },
    });
    child.on("error", done);
    child.on("close", done);
  });
}

function nameOf(file) {
  return basename(file, ".mjs");
}

function textOf(path) {
  return existsSync(path) ? readFileSync(path, "utf8") : "";
}

/** @returns {Promise<string[]>} files to begin again, because the emulator broke the VM under them */
async function runFiles(files, group, given, report, mayRepeat) {
  const shareDir = mkdtempSync(join(tmpdir(), "blksnap-e2e-"));
  const resultsPath = join(shareDir, "results");
  const outputPath = join(shareDir, "output");
  const command = [process.execPath, RUNNER, resultsPath, outputPath, ...files];
  report.follow(resultsPath);
  let death;
  try {
    if (given.host) await runGroupHere(command, guestVariables(given, group));
    else death = await runGroupInVm(command, guestVariables(given, group), shareDir, group.kernel);
    if (death?.emulatorFault && mayRepeat) {
      const again = report.takeBackUnended(files.map(nameOf));
      return files.filter((file) => again.includes(nameOf(file)));
    }
    report.finishGroup(files.map(nameOf), death && { ...death, output: textOf(outputPath) });
    return [];
  } finally {
    report.unfollow();
    rmSync(shareDir, { recursive: true, force: true });
  }
}

async function runGroup(group, given, report) {
  if (group.kernel !== undefined) console.log(`── on the kernel "${group.kernel}"`);
  let files = group.files;
  for (let faults = 0; files.length > 0; faults++) {
    const mayRepeat = faults < EMULATOR_FAULTS_BORNE;
    files = await runFiles(files, group, given, report, mayRepeat);
  }
}

/** A VM does not end with the process that started it. */
const interrupted = new AbortController();
for (const name of ["SIGINT", "SIGTERM", "SIGHUP"]) {
  process.on(name, () => {
    interrupted.abort();
    process.exitCode = 1;
  });
}

const given = options();
if (given.help) {
  console.log(USAGE);
  process.exit(0);
}
const groups = select(plannedGroups(), given);
if (groups.length === 0) fail(`no file matches ${given.only}`);
if (given.list) {
  const names = groups.flatMap(({ files }) => files.map(nameOf));
  for (const name of new Set(names)) console.log(name);
  process.exit(0);
}
assertVariablesKnown();
if (!existsSync(join(REPOSITORY, "node_modules/.bin/blksnapd"))) {
  fail("the packages are not built; run: npm run build");
}
if (given.host && !hostHasUblk()) fail("this machine has no ublk: modprobe ublk_drv as root");
const report = new Report();
try {
  for (const group of groups) {
    const isEnough = report.failed > 0 && !given["keep-going"];
    if (isEnough || interrupted.signal.aborted) {
      report.skipFiles(group.files.map(nameOf));
    } else {
      await runGroup(group, given, report);
    }
  }
} catch (error) {
  if (!(error instanceof VmError)) throw error;
  fail(`the VM cannot run: ${error.message}`);
}
report.printSummary();
process.exit(report.failed === 0 && report.passed > 0 ? 0 : 1);
