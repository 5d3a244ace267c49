/**
 * Runs test files one after the other in this process, started by run-tests.mjs. Each file's report follows a line
 * with its name, so that a file without tests is noticed, and so are the files after one that ends the process.
 * Each test's title goes before its output, so that a test that hangs, or ends the process, has a name.
 */
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

/** Of all suites: uvu notes in a suite's state which test it runs. Tests may replace the method, not what is kept here. */
function announceTests(title) {
  const write = process.stdout.write.bind(process.stdout);
  let running = "";
  Object.defineProperty(Object.prototype, "__test__", {
    get: () => running,
    set: (name) => {
      running = name;
      if (name !== "") write(`\n${title}${name.replaceAll("\n", " ")}\n`);
    },
  });
}

/** Of this process, and of its children that have ended: user and system time. */
function processorSeconds() {
  const fields = readFileSync("/proc/self/stat", "utf8").split(") ").at(-1).split(" ");
  const TICKS_PER_SECOND = 100;
  return fields.slice(11, 15).reduce((sum, ticks) => sum + Number(ticks), 0) / TICKS_PER_SECOND;
}

const [header, title, footer, ...paths] = process.argv.slice(2);
announceTests(title);
// Files add their tests to a queue, which runs when we say so.
globalThis.UVU_DEFER = 1;
const { exec } = await import("uvu");
let hasFailed = false;
let toldS = 0;
for (const path of paths) {
  console.log(`${header}${path}`);
  globalThis.UVU_QUEUE = [[null]];
  await import(pathToFileURL(path).href);
  await exec();
  const nowS = processorSeconds();
  console.log(`${footer}${(nowS - toldS).toFixed(1)}`);
  toldS = nowS;
  hasFailed ||= process.exitCode !== 0;
}
// Whatever a failed test has not closed would keep this process, and its report, until the time limit.
if (hasFailed) process.exit(1);
process.exitCode = 0;
