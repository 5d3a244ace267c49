/** Groups of the plan, and the run of one in a VM or on this machine. */
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { runInVm } from "../../tools/vm/index.mjs";
import { timeLimitMs } from "./lib/limits.mjs";
import { partOf } from "./lib/sample.mjs";
import { GROUPS, VARIABLES } from "./plan.mjs";
import { VmReport } from "./report.mjs";

const HERE = dirname(fileURLToPath(import.meta.url));
export const REPOSITORY = resolve(HERE, "../..");
const RUNNER = join(HERE, "guest/runner.mjs");
const PACKAGES = join(REPOSITORY, "packages");
const VM_LIMIT_MS = timeLimitMs(3_600_000);
/** How often a group is restarted because the emulator broke its VM (tools/vm, emulatorFault). */
const EMULATOR_FAULTS_BORNE = 2;

export class PlanError extends Error {}

export function nameOf(file) {
  return basename(file, ".mjs");
}

/** Tests of packages that need ublk: packages/NAME/vm-test/SUBJECT.vm-test.mjs. */
function packageTestFolders() {
  return readdirSync(PACKAGES)
    .map((name) => ({ name, path: join(PACKAGES, name, "vm-test") }))
    .filter(({ path }) => existsSync(path));
}

/** All that could be in the plan, by the plan's names. */
function filesThere() {
  const scenarios = readdirSync(join(HERE, "scenarios")).map(nameOf);
  const packageTests = packageTestFolders().flatMap(({ name, path }) =>
    readdirSync(path)
      .filter((file) => file.endsWith(".vm-test.mjs"))
      .map((file) => `${name}/vm-test/${nameOf(file)}`),
  );
  return [...scenarios, ...packageTests];
}

function pathOf(file) {
  const folder = file.includes("/") ? PACKAGES : join(HERE, "scenarios");
  return join(folder, `${file}.mjs`);
}

function filesOf({ name, files, inTurns = [] }, sample) {
  const chosen = inTurns.flatMap((list) => partOf(`${name} ${list[0]}`, list, list.length, sample));
  return [...files, ...chosen];
}

const filesOfAll = (groups) => groups.flatMap((group) => filesOf(group));

/** Otherwise a test that is in no run would be skipped silently. */
function assertAllPlanned() {
  const stock = GROUPS.filter(({ kernel }) => kernel === undefined);
  const quick = filesOfAll(stock.filter(({ isQuick }) => isQuick));
  const others = filesOfAll(stock.filter(({ isQuick }) => !isQuick));
  const missing = filesThere().filter((name) => !quick.includes(name) && !others.includes(name));
  if (missing.length > 0) throw new PlanError(`plan.mjs does not name: ${missing.join(", ")}`);
  for (const name of filesThere()) {
    const isInParts = /\btest\.quick\(/.test(readFileSync(pathOf(name), "utf8"));
    if (isInParts !== (quick.includes(name) && others.includes(name)))
      throw new PlanError(
        `${name}: a file is in a quick group of plan.mjs and in another where it has tests of test.quick, and only there`,
      );
  }
}

/** The plan's groups with full paths: of a sample, or whole. */
export function plannedGroups(sample) {
  assertAllPlanned();
  return GROUPS.map((group) => ({ ...group, files: filesOf(group, sample).map(pathOf) }));
}

/** A variable that is not passed into the VM would be ignored there silently. */
export function assertVariablesKnown() {
  const folders = [join(HERE, "scenarios"), join(HERE, "lib")];
  for (const folder of [...folders, ...packageTestFolders().map(({ path }) => path)]) {
    for (const name of readdirSync(folder)) {
      const path = join(folder, name);
      for (const [, variable] of readFileSync(path, "utf8").matchAll(/process\.env\.(\w+)/g)) {
        const known = variable in VARIABLES || /^(E2E_|PATH$)/.test(variable);
        if (!known)
          throw new PlanError(`plan.mjs does not name the variable ${variable} of ${name}`);
      }
    }
  }
}

/** A file that runs completely does so in one group, not split between a quick group and another. */
function withoutParts(groups) {
  const others = groups.filter(({ isQuick }) => !isQuick).flatMap(({ files }) => files);
  return groups.map((group) => ({
    ...group,
    files: group.isQuick ? group.files.filter((file) => !others.includes(file)) : group.files,
  }));
}

/**
 * Which files run, and where: on a kernel that is asked for, or on this machine, the groups of other
 * kernels add nothing.
 */
export function select(groups, { only, group: name, kernel, host, uml, quick, rest }) {
  const pattern = new RegExp(only ?? "");
  const isOneKernel = kernel !== undefined || host || uml;
  const isOtherKernel = (group) => group.kernel !== undefined && isOneKernel;
  const isInParts = quick || rest;
  const selected = groups
    .filter((group) => !isOtherKernel(group))
    .filter(({ isQuick = false }) => (isQuick ? !rest : !quick))
    .filter((group) => name === undefined || group.name === name);
  return (isInParts ? selected : withoutParts(selected))
    .map((group) => ({
      ...group,
      kernel: kernel ?? group.kernel,
      part: isInParts ? (group.isQuick ? "quick" : "others") : undefined,
      files: group.files.filter((file) => pattern.test(basename(file))),
    }))
    .filter(({ files }) => files.length > 0);
}

function textOf(path) {
  return existsSync(path) ? readFileSync(path, "utf8") : "";
}

/**
 * Runs groups, one per call.
 * @typedef {object} Setting
 * @property {boolean} [host] on this machine, not in a VM
 * @property {boolean} [uml] on User Mode Linux
 * @property {boolean} [keepGoing] runs the other files after one has failed
 * @property {boolean} isAlone no other VM runs beside
 * @property {number} cpusPerVm
 * @property {AbortSignal} signal
 */
export class GroupRunner {
  #setting;
  #report;

  /** @param {Setting} setting */
  constructor(setting, report) {
    this.#setting = setting;
    this.#report = report;
  }

  async run(group) {
    let files = group.files;
    for (let faults = 0; files.length > 0; faults++) {
      const mayRepeat = faults < EMULATOR_FAULTS_BORNE;
      files = await this.#runFiles(files, group, mayRepeat);
    }
  }

  /** @returns {Promise<string[]>} files to restart, because the emulator broke their VM */
  async #runFiles(files, group, mayRepeat) {
    const shareDir = mkdtempSync(join(tmpdir(), "blksnap-e2e-"));
    const resultsPath = join(shareDir, "results");
    const outputPath = join(shareDir, "output");
    const command = [process.execPath, RUNNER, resultsPath, outputPath, ...files];
    const { isAlone, host } = this.#setting;
    const vm = new VmReport(this.#report, { path: resultsPath, kernel: group.kernel, isAlone });
    let death;
    try {
      const variables = this.#guestVariables(group);
      if (host) await this.#runHere(command, variables);
      else death = await this.#runInVm(command, variables, { group, shareDir, vm });
      if (death?.emulatorFault && mayRepeat) {
        const again = vm.takeBackUnended(files.map(nameOf));
        return files.filter((file) => again.includes(nameOf(file)));
      }
      vm.finish(files.map(nameOf), death && { ...death, output: textOf(outputPath) });
      return [];
    } finally {
      vm.end();
      rmSync(shareDir, { recursive: true, force: true });
    }
  }

  #guestVariables(group) {
    return {
      ...(group.ownDaemons ? {} : { E2E_SHARED_DAEMON: "1" }),
      ...(group.part === undefined ? {} : { E2E_PART: group.part }),
      ...Object.fromEntries(
        Object.keys(VARIABLES).flatMap((name) =>
          process.env[name] ? [[name, process.env[name]]] : [],
        ),
      ),
      ...(this.#setting.keepGoing ? { E2E_KEEP_GOING: "1" } : {}),
    };
  }

  /** @returns {Promise<{why: string, console: string, emulatorFault: boolean} | undefined>} how it died, if it did */
  async #runInVm(command, env, { group, shareDir, vm }) {
    const { cpusPerVm, signal, uml } = this.#setting;
    const onOutput = (chunk) => vm.write(chunk);
    const result = await runInVm({
      command,
      env,
      uml,
      kernelSeries: group.kernel,
      cpus: group.cpus ?? cpusPerVm,
      cwd: REPOSITORY,
      shareDir,
      timeLimitMs: VM_LIMIT_MS,
      signal,
      onStdout: onOutput,
      onStderr: onOutput,
      onProgress: (text) => console.error(`vm: ${text}`),
    });
    if (result.aborted || result.status === 0) return undefined;
    const why = result.timedOut
      ? `the VM did not end within ${VM_LIMIT_MS / 1000} s`
      : result.status === null
        ? "the VM died"
        : `the VM's runner ended with status ${result.status}`;
    return { why, console: result.console, emulatorFault: result.emulatorFault };
  }

  #runHere(command, env) {
    return new Promise((done) => {
      const child = spawn(command[0], command.slice(1), {
        cwd: REPOSITORY,
        stdio: "inherit",
        signal: this.#setting.signal,
        env: { ...process.env, ...env },
      });
      child.on("error", done);
      child.on("close", done);
    });
  }
}
