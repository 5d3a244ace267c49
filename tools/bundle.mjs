// Makes a program of a few files in ./dist/bundle of the calling package, out of its compiled modules and
// those of the packages that it uses. Finding and reading hundreds of files is more than half of what a
// start takes, and after a crash of the daemon users of fronts wait for a start.
//
// ```
//   bundle.mjs dist/main.js ../data-plane/dist/worker.js
//                  │                       └─▶ dist/bundle/worker.js  alone: a reactor needs little
//                  └─────────────────────────▶ dist/bundle/main.js    and a chunk per import()
// ```
//
// A bundled module finds files of its package by the package's name, as it lies elsewhere.
//
// Nothing is minified: stacks in the log name functions and lines, for 6 % more time to start. Source maps
// are there for `node --enable-source-maps`. Reading them at each start would cost another 12 %.
import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { build } from "esbuild";
import { noticesOf } from "./release/notices.mjs";

const OUTPUT = "dist/bundle";
/** Modules of CommonJS packages ask for Node's own in their way. */
const REQUIRE =
  'import { createRequire as bundleRequire } from "node:module"; const require = bundleRequire(import.meta.url);';

const entryPoints = process.argv.slice(2);
if (entryPoints.length === 0) {
  console.error("Usage: node tools/bundle.mjs ENTRY...");
  process.exit(2);
}

/** Folders of the packages in node_modules whose files went into a bundle. */
function packagesIn(metafile) {
  const paths = Object.keys(metafile.inputs).map((path) => resolve(path));
  const inModules = paths.filter((path) => path.includes("/node_modules/"));
  return new Set(inModules.map((path) => /^.*\/node_modules\/(@[^/]+\/)?[^/]+/.exec(path)[0]));
}

/**
 * Sources of other packages lie beside this one in the repository. Where a package without a scope is
 * installed, those with one do not: from there they are found through node_modules, here as well.
 */
function pointMapsAtInstalledSources() {
  const { name } = JSON.parse(readFileSync("package.json", "utf8"));
  if (name.startsWith("@")) return;
  for (const file of readdirSync(OUTPUT).filter((entry) => entry.endsWith(".map"))) {
    const map = JSON.parse(readFileSync(join(OUTPUT, file), "utf8"));
    map.sources = map.sources.map((source) => {
      const [, folder, rest] = /^\.\.\/\.\.\/\.\.\/([\w-]+)\/(src\/.*)$/.exec(source) ?? [];
      if (folder === undefined) return source;
      const manifest = JSON.parse(readFileSync(join("..", folder, "package.json"), "utf8"));
      return `../../../../node_modules/${manifest.name}/${rest}`;
    });
    writeFileSync(join(OUTPUT, file), JSON.stringify(map));
  }
}

rmSync(OUTPUT, { recursive: true, force: true });
const bundled = new Set();
for (const entryPoint of entryPoints) {
  const { metafile } = await build({
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
    sourcemap: "linked",
    sourcesContent: false,
    // The whole licences are in the notices.
    legalComments: "none",
    metafile: true,
    // Hardly any daemon is asked for the description of its API.
    external: ["@fastify/swagger"],
    logLevel: "warning",
  });
  for (const folder of packagesIn(metafile)) bundled.add(folder);
}
pointMapsAtInstalledSources();
writeFileSync(join(OUTPUT, "..", "third-party-notices.txt"), noticesOf([...bundled].sort()));
