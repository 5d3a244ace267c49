// Simulates the engine, or with --driver the whole driver, from a seed:
//   node test/sim/run.mjs [--driver] --seed S --steps N [--seeds COUNT] [--trace]
//
// The simulators themselves are part of the packages' tests: packages/engine/test/sim, packages/driver/test/sim.
import { spawnSync } from "node:child_process";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const isDriver = process.argv.includes("--driver");
const which = isDriver ? "driver" : "engine";
const folder = join(dirname(fileURLToPath(import.meta.url)), "../../packages", which);
const typescript = dirname(createRequire(import.meta.url).resolve("typescript/package.json"));
const tsc = join(typescript, "bin", "tsc");
const build = spawnSync(process.execPath, [tsc, "-b", join(folder, "test")], { stdio: "inherit" });
if (build.status !== 0) process.exit(build.status ?? 1);
process.argv = process.argv.filter((word) => word !== "--driver");
await import(join(folder, "test-dist/sim/main.js"));
