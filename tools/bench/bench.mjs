// Benchmarks: candidates measured side by side, in turn, in one run.
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { hostHasUblk, runInVm } from "../vm/index.mjs";
import { measureBlock } from "./block.mjs";
import { DISK_KINDS } from "./disks.mjs";
import { measureExport } from "./export.mjs";
import { measureNbd } from "./nbd.mjs";
import { measureNbdFirstWrite } from "./nbd-first-write.mjs";
import { measurePlane } from "./plane.mjs";
import { comparisonText, resultsText } from "./report.mjs";
import { measureRing } from "./ring.mjs";
import { SERIES } from "./series.mjs";
import { resultsSvg } from "./svg.mjs";

/** Marks the line with the results among what the guest prints. */
const RESULTS_MARK = "bench-results ";
const TIME_LIMIT_MS = 3_600_000;
/** Those that need no block devices, and so no VM. */
const HERE = {
  ring: {
    title: "NOPs through a ring: TypeScript against C with liburing, on this machine",
    measure: measureRing,
  },
  plane: {
    title: "JavaScript for each request, by kind, without the driver, on this machine",
    measure: measurePlane,
  },
  nbd: {
    title: "reads of a file in memory over NBD: our server, qemu-nbd, nbdkit, on this machine",
    measure: measureNbd,
  },
  "nbd-first-write": {
    title: "first writes under a snapshot over NBD, against QEMU's copy-before-write",
    measure: measureNbdFirstWrite,
  },
  export: {
    title: "exports of an image file, full and incremental, against dd, on this machine",
    measure: measureExport,
  },
};

const USAGE = `Usage: npm run bench -- [SERIES]... [OPTION]...

${Object.entries({ ...SERIES, ...HERE })
  .map(([name, { title }]) => `  ${name.padEnd(13)} ${title}`)
  .join("\n")}

Without a name: all but ${Object.keys(HERE).join(", ")}.

  --rounds N        each candidate so many times, in turn with the others (default 3)
  --seconds N       how long a load without an end of its own runs (default 2)
  --only PATTERN    only candidates that match the regular expression, and those of reference
  --loads PATTERN   only loads that match the regular expression
  --reference NAME  ratios to this candidate, where a series has it
  --disk KIND       ${Object.keys(DISK_KINDS).join(", ")} (default ram)
  --host            on this machine instead of in a VM: needs ublk and root, takes /dev/ram0 and 1
  --json FILE       write all that was measured
  --svg FILE        draw it
  --against FILE    compare with a run that --json has written

Prints medians, and the median, least and largest ratio to the reference within a round. Only ratios
mean something on another machine. A disk of 4 ms gets a 32nd of the writes that are counted, not timed.
`;

function fail(text) {
  process.stderr.write(`bench: ${text}\n`);
  process.exit(2);
}

function options() {
  const text = { type: "string" };
  const flag = { type: "boolean" };
  try {
    return parseArgs({
      allowPositionals: true,
      options: {
        rounds: { ...text, default: "3" },
        seconds: { ...text, default: "2" },
        only: text,
        loads: text,
        reference: text,
        disk: { ...text, default: "ram" },
        host: flag,
        json: text,
        svg: text,
        against: text,
        guest: flag,
        help: { ...flag, short: "h" },
      },
    });
  } catch (error) {
    return fail(`${error.message}. See --help`);
  }
}

function count(values, name) {
  const value = Number(values[name]);
  if (Number.isSafeInteger(value) && value > 0) return value;
  return fail(`--${name} wants a whole number above 0, not ${values[name]}`);
}

/** The same command in the VM, which prints its results. */
async function measureInVm(args) {
  let printed = "";
  const run = await runInVm({
    command: [process.execPath, process.argv[1], ...args, "--host", "--guest"],
    cwd: process.cwd(),
    timeLimitMs: TIME_LIMIT_MS,
    onStdout: (chunk) => {
      printed += chunk;
    },
    onStderr: (chunk) => process.stderr.write(chunk),
  });
  const line = printed.split("\n").find((one) => one.startsWith(RESULTS_MARK));
  if (run.status !== 0 || line === undefined) fail(`the VM failed: ${printed}`);
  return JSON.parse(line.slice(RESULTS_MARK.length));
}

const { values, positionals } = options();
if (values.help) {
  process.stdout.write(USAGE);
  process.exit(0);
}
const names = positionals.length > 0 ? positionals : Object.keys(SERIES);
for (const name of names) {
  if ((HERE[name] ?? SERIES[name]) === undefined) fail(`no series "${name}". See --help`);
}
const plan = {
  names: names.filter((name) => HERE[name] === undefined),
  rounds: count(values, "rounds"),
  runtimeS: count(values, "seconds"),
  only: values.only,
  loads: values.loads,
  reference: values.reference,
  kind: values.disk,
};
if (DISK_KINDS[plan.kind] === undefined) fail(`no disk "${plan.kind}". See --help`);
const before =
  values.against === undefined ? undefined : JSON.parse(readFileSync(values.against, "utf8"));

/** Rounds that are done are kept if what comes later fails or is ended. */
const save = (of) => {
  if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(of)}\n`);
};
let results = { schema: 2, rounds: plan.rounds, groups: [] };
if (plan.names.length > 0) {
  if (values.host && !hostHasUblk()) fail("this machine has no ublk: modprobe ublk_drv as root");
  if (!existsSync("node_modules/.bin/blksnapd")) fail("the packages are not built: npm run build");
  const words = [...plan.names, "--rounds", String(plan.rounds)];
  words.push("--seconds", String(plan.runtimeS), "--disk", plan.kind);
  if (plan.only !== undefined) words.push("--only", plan.only);
  if (plan.loads !== undefined) words.push("--loads", plan.loads);
  if (plan.reference !== undefined) words.push("--reference", plan.reference);
  results = values.host ? await measureBlock({ ...plan, onRound: save }) : await measureInVm(words);
}
for (const [name, { measure }] of Object.entries(HERE)) {
  if (names.includes(name))
    results.groups.push(...[await measure(plan.rounds, plan.runtimeS)].flat());
}
if (values.guest) {
  process.stdout.write(`${RESULTS_MARK}${JSON.stringify(results)}\n`);
} else {
  process.stdout.write(resultsText(results));
  if (before !== undefined) process.stdout.write(comparisonText(results, before));
  save(results);
  if (values.svg !== undefined) writeFileSync(values.svg, resultsSvg(results));
}
process.exit(0);
