/**
 * Runs test files one after the other in this process: what run-tests.mjs starts. Each file's report comes under a line
 * with its name, so that none hides behind another: a file without tests has a report of none, and one that ends the
 * process leaves the next ones without.
 */
import { pathToFileURL } from "node:url";

// Files add their tests to a queue, which runs when we say so.
globalThis.UVU_DEFER = 1;
const { exec } = await import("uvu");

let hasFailed = false;
const [header, ...paths] = process.argv.slice(2);
for (const path of paths) {
  console.log(`${header}${path}`);
  globalThis.UVU_QUEUE = [[null]];
  await import(pathToFileURL(path).href);
  await exec();
  hasFailed ||= process.exitCode !== 0;
}
process.exitCode = hasFailed ? 1 : 0;
