/** The end-to-end tests: scenarios on the real ublk driver, in VMs. See --help. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { hostHasUblk, VmError } from "../../tools/vm/index.mjs";
import { ensureInstalled } from "../install/project.mjs";
import {
  assertVariablesKnown,
  GroupRunner,
  nameOf,
  PlanError,
  plannedGroups,
  REPOSITORY,
  select,
} from "./groups.mjs";
import { CPUS_PER_VM, vmsAtOnce } from "./machines.mjs";
import { VARIABLES } from "./plan.mjs";
import { Report } from "./report.mjs";

const USAGE = `Usage: node test/e2e/run.mjs [OPTION]...

Runs the end-to-end scenarios in VMs with ublk and prints a line per test.

  --only PATTERN   only files whose name matches the regular expression
  --quick          only the groups that stand for the others: those of npm test
  --rest           only the other groups
  --group NAME     only this group of plan.mjs
  --sampled        a part of what is proved beside the driver too: other ones in each run, which
                   prints the seed; SAMPLE=SEED has the same again
  --jobs N         so many VMs at once (default: as many as processors and memory bear)
  --list           print the files and end
  --keep-going     run the other files after one has failed
  --kernel SERIES  run them on this kernel of tools/vm alone: "newest" for that of the backports
  --uml            run them on User Mode Linux: see tools/vm/README.md
  --host           run on this machine instead of a VM: it needs ublk and root, and gets test disks
  --help

In the environment:

${Object.entries(VARIABLES)
  .map(([name, what]) => `  ${name.padEnd(22)} ${what}`)
  .join("\n")}`;

function fail(text) {
  console.error(`e2e: ${text}`);
  process.exit(1);
}

function options() {
  const flag = { type: "boolean" };
  const text = { type: "string" };
  try {
    const { values } = parseArgs({
      options: {
        only: text,
        quick: flag,
        rest: flag,
        group: text,
        sampled: flag,
        jobs: text,
        list: flag,
        "keep-going": flag,
        kernel: text,
        uml: flag,
        host: flag,
        help: { ...flag, short: "h" },
      },
    });
    if (values.jobs !== undefined && !/^[1-9]\d?$/.test(values.jobs)) {
      return fail(`--jobs wants a number from 1 to 99, not ${values.jobs}. See --help`);
    }
    if (values.uml && (values.host || values.kernel !== undefined)) {
      return fail("--uml is a machine and a kernel of its own: no --host, no --kernel. See --help");
    }
    if (values.quick && values.rest) return fail("--quick and --rest are all. See --help");
    return values;
  } catch (error) {
    return fail(`${error.message}. See --help`);
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

function selectedGroups(given) {
  try {
    const groups = select(plannedGroups(process.env.SAMPLE), given);
    if (groups.length === 0) fail(`no file matches ${given.only ?? given.group}`);
    assertVariablesKnown();
    return groups;
  } catch (error) {
    if (!(error instanceof PlanError)) throw error;
    return fail(error.message);
  }
}

/** Takes groups from the front of the queue, as the other runs beside it do. */
async function runQueue(queue, runner, report, given) {
  for (let group = queue.shift(); group !== undefined; group = queue.shift()) {
    const isEnough = report.failed > 0 && !given["keep-going"];
    if (isEnough || interrupted.signal.aborted) report.skipFiles(group.files.map(nameOf));
    else await runner.run(group);
  }
}

const given = options();
if (given.help) {
  console.log(USAGE);
  process.exit(0);
}
if (given.sampled) process.env.SAMPLE ??= String(Date.now() % 1_000_000);
const groups = selectedGroups(given);
if (given.list) {
  const names = groups.flatMap(({ files }) => files.map(nameOf));
  for (const name of new Set(names)) console.log(name);
  process.exit(0);
}
if (!existsSync(join(REPOSITORY, "node_modules/.bin/blksnapd"))) {
  fail("the packages are not built; run: npm run build");
}
if (given.host && !hostHasUblk()) fail("this machine has no ublk: modprobe ublk_drv as root");
if (groups.some(({ files }) => files.some((file) => nameOf(file) === "installed")))
  await ensureInstalled();
if (process.env.SAMPLE) console.log(`SAMPLE=${process.env.SAMPLE}`);
const report = new Report();
const jobs = given.host ? 1 : Math.min(groups.length, Number(given.jobs ?? vmsAtOnce()));
const setting = {
  host: given.host,
  uml: given.uml,
  keepGoing: given["keep-going"],
  isAlone: jobs === 1,
  cpusPerVm: CPUS_PER_VM,
  signal: interrupted.signal,
};
try {
  const queue = [...groups];
  const runner = new GroupRunner(setting, report);
  await Promise.all(Array.from({ length: jobs }, () => runQueue(queue, runner, report, given)));
} catch (error) {
  if (!(error instanceof VmError)) throw error;
  fail(`the VM cannot run: ${error.message}`);
}
report.printSummary();
process.exit(report.failed === 0 && report.passed > 0 ? 0 : 1);
