// Makes a program of a few files in ./dist/bundle of the calling package, out of its compiled modules and
// those of the packages that it uses. Finding and reading hundreds of files is more than half of what a
// start takes, and after a crash of the daemon users of fronts wait for a start.
//
// ```
//   bundle.mjs dist/daemon/main.js dist/reactor/worker.js
//                  │                     └─▶ dist/bundle/worker.js  alone: a reactor needs little
//                  └───────────────────────▶ dist/bundle/main.js    and a chunk per import()
// ```
//
// A bundled module finds files of its package by the package's name, as it lies elsewhere.
import { rmSync } from "node:fs";
import { build } from "esbuild";

const OUTPUT = "dist/bundle";
/** Modules of CommonJS packages ask for Node's own in their way. */
const REQUIRE =
  'import { createRequire as bundleRequire } from "node:module"; const require = bundleRequire(import.meta.url);';

const entryPoints = process.argv.slice(2);
if (entryPoints.length === 0) {
  console.error("Usage: node tools/bundle.mjs ENTRY...");
  process.exit(2);
}
rmSync(OUTPUT, { recursive: true, force: true });
for (const entryPoint of entryPoints) {
  await build({
    entryPoints: [entryPoint],
    bundle: true,
    splitting: true,
    platform: "node",
    target: "node20",
    format: "esm",
    outdir: OUTPUT,
    entryNames: "[name]",
    chunkNames: "[name]-[hash]",
    banner: { js: REQUIRE },
    // Names stay: they are in the stacks of the log.
    minifySyntax: true,
    minifyWhitespace: true,
    legalComments: "linked",
    // Hardly any daemon is asked for the description of its API.
    external: ["@fastify/swagger"],
    logLevel: "warning",
  });
}
