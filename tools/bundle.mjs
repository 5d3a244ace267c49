// Makes a program of a few files in ./dist/bundle of the calling package, out of its compiled modules and
// those of the packages that it uses. Finding, reading and compiling hundreds of files is most of what a
// start takes, and after a crash of the daemon users of fronts wait for a start.
//
// ```
//   bundle.mjs dist/main.js dist/program.js ../data-plane/dist/worker.js
//                  │               │                    └─▶ worker.js   loads worker-HASH.js, a reactor needs little
//                  │               └──────────────────────▶ program.js  loads program-HASH.js
//                  └──────────────────────────────────────▶ main.js     loads main-HASH.js
//                                                            each with NAME-HASH.cache: its code, compiled
// ```
//
// Each is one file of CommonJS, in which what an import() asks for is run when it does: V8 takes compiled code
// for scripts only, and compiling is more than half of what loading takes. An entry that imports another one
// asks for its file, and does not contain it. A bundled module finds files of its package by the package's
// name, as it lies elsewhere.
//
// Nothing is minified: stacks in the log name functions and lines. Source maps are there for
// `node --enable-source-maps`. Reading them at each start would cost another 12 %.
import { spawnSync } from "node:child_process";
import { copyFileSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { noticesOf } from "./release/notices.mjs";

const OUTPUT = "dist/bundle";
const LOADER = fileURLToPath(new URL("bundle-loader.cjs", import.meta.url));
/** Replaces `import.meta` of ECMAScript modules in CommonJS. */
const META = `const bundleUrl = require("node:url").pathToFileURL(__filename).href;
const bundleResolve = (name) => require("node:url").pathToFileURL(require.resolve(name)).href;`;

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
      const [, folder, rest] =
        /^\.\.\/\.\.\/\.\.\/([\w-]+)\/((?:src|dist)\/.*)$/.exec(source) ?? [];
      if (folder === undefined) return source;
      const manifest = JSON.parse(readFileSync(join("..", folder, "package.json"), "utf8"));
      return `../../../../node_modules/${manifest.name}/${rest}`;
    });
    writeFileSync(join(OUTPUT, file), JSON.stringify(map));
  }
}

/** Other entries are loaded from their own files. */
function leavingOut(entries) {
  const paths = new Set(entries.map((entry) => resolve(entry)));
  return {
    name: "other entries",
    setup: ({ onResolve }) => {
      onResolve({ filter: /^\.{1,2}\// }, ({ path, resolveDir }) => {
        if (!paths.has(resolve(resolveDir, path))) return undefined;
        return { path: `./${basename(path)}`, external: true };
      });
    },
  };
}

/** Returns the name of the bundled file, which changes with its content. */
async function bundle(entryPoint) {
  const others = entryPoints.filter((other) => other !== entryPoint);
  const { metafile } = await build({
    entryPoints: [entryPoint],
    bundle: true,
    platform: "node",
    target: "node20",
    format: "cjs",
    outdir: OUTPUT,
    entryNames: "[name]-[hash]",
    banner: { js: META },
    define: { "import.meta.url": "bundleUrl", "import.meta.resolve": "bundleResolve" },
    supported: { "dynamic-import": false },
    sourcemap: "linked",
    sourcesContent: false,
    // The whole licences are in the notices.
    legalComments: "none",
    metafile: true,
    // It reads a file beside it.
    external: ["@bokuweb/zstd-wasm"],
    plugins: [leavingOut(others)],
    logLevel: "warning",
  });
  for (const folder of packagesIn(metafile)) bundled.add(folder);
  return basename(Object.keys(metafile.outputs).find((path) => path.endsWith(".js")));
}

/** Makes a fresh Node run the file and save its compiled code. */
function keepCompiled(file) {
  const words = [join(OUTPUT, "load.js"), resolve(OUTPUT, file)];
  const { status } = spawnSync(process.execPath, words, { stdio: "inherit", env: {} });
  if (status !== 0) throw new Error(`${file} cannot be compiled beforehand`);
}

rmSync(OUTPUT, { recursive: true, force: true });
const bundled = new Set();
const names = new Map();
for (const entryPoint of entryPoints) {
  names.set(basename(entryPoint), await bundle(entryPoint));
}
pointMapsAtInstalledSources();
writeFileSync(join(OUTPUT, "package.json"), `${JSON.stringify({ type: "commonjs" })}\n`);
copyFileSync(LOADER, join(OUTPUT, "load.js"));
for (const [name, file] of names) {
  const path = `\`\${__dirname}/${file}\``;
  writeFileSync(join(OUTPUT, name), `module.exports = require("./load.js").load(${path});\n`);
}
for (const file of names.values()) keepCompiled(file);
writeFileSync(join(OUTPUT, "..", "third-party-notices.txt"), noticesOf([...bundled].sort()));
