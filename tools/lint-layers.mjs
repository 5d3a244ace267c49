// Checks that packages import downward only.
//
// Each package carries an Nx tag `layer:NAME`; ALLOWED says which layers a layer may import. Both
// what package.json declares and what the sources really import are checked, and only packages/uring
// may hold native code.
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

const ALLOWED = {
  errors: [],
  testing: [],
  "linux-block": ["errors"],
  "event-queue": ["errors"],
  journal: ["errors"],
  uring: ["errors"],
  api: ["errors"],
  ublk: ["uring", "errors"],
  "diff-storage": ["linux-block", "event-queue", "errors"],
  engine: ["diff-storage", "event-queue", "errors"],
  "data-plane": ["ublk", "uring", "engine", "diff-storage", "journal", "errors"],
  driver: [
    ...["data-plane", "ublk", "uring", "engine", "diff-storage", "linux-block", "event-queue"],
    ...["journal", "api", "errors"],
  ],
  "api-server": ["api", "errors"],
  daemon: ["driver", "api-server", "ublk", "uring", "linux-block", "api", "errors"],
  client: ["api", "errors"],
  blksnapctl: ["client", "api", "errors"],
};

const problems = [];
const packages = readdirSync("packages").map((dir) => {
  const manifest = JSON.parse(readFileSync(join("packages", dir, "package.json"), "utf8"));
  const tag = (manifest.nx?.tags ?? []).find((text) => text.startsWith("layer:"));
  return { dir, manifest, layer: tag?.slice("layer:".length) };
});
const layerOfName = new Map(packages.map(({ manifest, layer }) => [manifest.name, layer]));

function check(from, importedName, where) {
  const to = layerOfName.get(importedName);
  if (to === undefined || to === from.layer) return;
  if (!ALLOWED[from.layer].includes(to)) {
    problems.push(`${where}: layer ${from.layer} may not import ${importedName} (layer ${to})`);
  }
}

for (const pkg of packages) {
  if (pkg.layer === undefined || !(pkg.layer in ALLOWED)) {
    problems.push(`packages/${pkg.dir}/package.json: no known layer tag`);
    continue;
  }
  const base = join("packages", pkg.dir);
  for (const name of Object.keys(pkg.manifest.dependencies ?? {})) {
    check(pkg, name, join(base, "package.json"));
  }
  for (const name of readdirSync(base, { recursive: true })) {
    if (/(^|\/)(node_modules|dist|test-dist|build)\//.test(name)) continue;
    if (/\.(cc|cpp|c|h|hpp)$/.test(name) && pkg.layer !== "uring") {
      problems.push(`${join(base, name)}: native code belongs in packages/uring`);
    }
    if (!/^src\/.*\.ts$/.test(name)) continue;
    const text = readFileSync(join(base, name), "utf8");
    for (const match of text.matchAll(/(?:from|import\()\s*"((?:@blksnap\/)?[a-z-]+)[/"]/g)) {
      check(pkg, match[1], join(base, name));
      const declared = pkg.manifest.dependencies?.[match[1]] !== undefined;
      if (layerOfName.has(match[1]) && layerOfName.get(match[1]) !== pkg.layer && !declared) {
        problems.push(`${join(base, name)}: imports ${match[1]}, which package.json does not name`);
      }
    }
  }
}

for (const problem of problems) console.error(problem);
console.log(`lint-layers: ${packages.length} packages, ${problems.length} problems`);
process.exit(problems.length === 0 ? 0 : 1);
