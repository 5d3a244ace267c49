// What a request costs a reactor in JavaScript, by kind; see plane-run.mjs.
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";

const PROGRAM = fileURLToPath(new URL("plane-run.mjs", import.meta.url));
const LOADS = { warm: "4 KiB, QD 32, warm", first: "the same, first 2048 of their kind" };

function runOnce() {
  const run = spawnSync(process.execPath, [PROGRAM], { encoding: "utf8" });
  if (run.status !== 0) throw new Error(`${PROGRAM} failed: ${run.stderr || run.error}`);
  return JSON.parse(run.stdout);
}

/** µs of JavaScript per request: a group of results as report.mjs shows them. */
export function measurePlane(rounds) {
  const runs = Array.from({ length: rounds }, runOnce);
  const kinds = Object.keys(runs[0]);
  const loads = Object.entries(LOADS).map(([phase, name]) => ({
    name,
    values: Object.fromEntries(kinds.map((kind) => [kind, runs.map((run) => run[kind][phase])])),
  }));
  return { series: "plane", unit: "µs of JavaScript", reference: "front read", loads };
}
