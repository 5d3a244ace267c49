// Simulates the engine from a seed:  node test/sim/run.mjs --seed S --steps N [--seeds COUNT] [--trace]
//
// The simulator itself is part of the engine's tests: packages/engine/test/sim.
import { spawnSync } from "node:child_process";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const engine = join(dirname(fileURLToPath(import.meta.url)), "../../packages/engine");
const typescript = dirname(createRequire(import.meta.url).resolve("typescript/package.json"));
const tsc = join(typescript, "bin", "tsc");
const build = spawnSync(process.execPath, [tsc, "-b", join(engine, "test")], { stdio: "inherit" });
if (build.status !== 0) process.exit(build.status ?? 1);
await import(join(engine, "test-dist/sim/main.js"));
