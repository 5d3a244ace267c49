// NOPs through a ring: what driving it from TypeScript costs above C.
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { compiled } from "./compile.mjs";

const BATCHES = [1, 8, 32, 128];
const NOPS = 2_000_000;

function output(command, commandArgs) {
  const run = spawnSync(command, commandArgs, { encoding: "utf8" });
  if (run.status !== 0) throw new Error(`${command} failed: ${run.stderr || run.error}`);
  return run.stdout;
}

/** ns per NOP: a group of results as report.mjs shows them. */
export function measureRing(rounds) {
  const here = (name) => fileURLToPath(new URL(name, import.meta.url));
  const work = mkdtempSync(join(tmpdir(), "blksnap-bench-"));
  try {
    const binary = compiled("ring", work);
    const loads = BATCHES.map((batch) => ({
      name: `batch of ${batch}`,
      values: { C: [], TypeScript: [] },
    }));
    for (let round = 0; round < rounds; round++) {
      for (const [index, { values }] of loads.entries()) {
        const load = [String(BATCHES[index]), String(NOPS)];
        values.C.push(Number(output(binary, load)));
        values.TypeScript.push(
          Number(output(process.execPath, [here("ring-typescript.mjs"), ...load])),
        );
      }
    }
    return { series: "ring", unit: "ns per NOP", reference: "C", loads };
  } finally {
    rmSync(work, { recursive: true });
  }
}
