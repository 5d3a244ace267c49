// NOPs through a ring: what driving it from TypeScript costs above C.
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { formatTable, median, numberArgument } from "./table.mjs";

const BATCHES = [1, 8, 32, 128];
const NOPS = 2_000_000;
const args = process.argv.slice(2);
const rounds = numberArgument(args, "rounds", 5);
const here = (name) => fileURLToPath(new URL(name, import.meta.url));
const work = mkdtempSync(join(tmpdir(), "blksnap-bench-"));

function output(command, commandArgs) {
  const run = spawnSync(command, commandArgs, { encoding: "utf8" });
  if (run.status !== 0) throw new Error(`${command} failed: ${run.stderr || run.error}`);
  return run.stdout;
}

try {
  const binary = join(work, "ring");
  output("gcc", ["-O2", "-o", binary, here("native/ring.c"), "-luring"]);
  const results = BATCHES.map((batch) => ({ batch, c: [], typescript: [] }));
  for (let round = 0; round < rounds; round++) {
    for (const result of results) {
      const load = [String(result.batch), String(NOPS)];
      result.c.push(Number(output(binary, load)));
      result.typescript.push(
        Number(output(process.execPath, [here("ring-typescript.mjs"), ...load])),
      );
    }
  }
  const rows = results.map(({ batch, c, typescript }) => {
    const [nativeNs, scriptNs] = [median(c), median(typescript)];
    return { batch, nativeNs, scriptNs, moreNs: scriptNs - nativeNs, ratio: scriptNs / nativeNs };
  });
  if (args.includes("--json")) {
    console.log(JSON.stringify({ schema: 1, bench: "ring", rounds, nops: NOPS, rows }));
  } else {
    const cells = rows.map((row) => [
      String(row.batch),
      row.nativeNs.toFixed(1),
      row.scriptNs.toFixed(1),
      row.moreNs.toFixed(1),
      row.ratio.toFixed(2),
    ]);
    console.log(`ns per NOP, medians of ${rounds} interleaved rounds`);
    console.log(formatTable([["batch", "C", "TypeScript", "more", "ratio"], ...cells]));
  }
} finally {
  rmSync(work, { recursive: true });
}
