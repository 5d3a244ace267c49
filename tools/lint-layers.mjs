/**
 * Checks that packages import downward only, and that none holds too much of the project.
 *
 * Each package carries an Nx tag `layer:NAME`; ALLOWED says which layers a layer may import: only earlier ones, so
 * that there is no cycle (biome finds those of files). Both package.json and the real imports are checked, and only
 * packages/uring may hold native code. The picture of packages in README.md and CONTRIBUTING.md, the table in
 * README.md, the list of CONTRIBUTING.md that says where things go, and the page of time limits must be true, too.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { limitProblems } from "./lint-limits.mjs";
import { linkProblems } from "./lint-links.mjs";
import { sizeProblems } from "./lint-sizes.mjs";
import { syncProblems } from "./lint-sync.mjs";
import { whereProblems } from "./lint-where.mjs";

const ALLOWED = {
  errors: [],
  testing: [],
  "linux-block": ["errors"],
  "event-queue": ["errors"],
  journal: ["errors"],
  uring: ["errors"],
  // Below the system calls of a program under test; nothing that is published imports it.
  "sim-kernel": ["uring", "errors"],
  api: ["errors"],
  ublk: ["uring", "linux-block", "errors"],
  nbd: ["ublk", "uring", "errors"],
  "diff-storage": ["linux-block", "event-queue", "errors"],
  engine: ["diff-storage", "event-queue", "errors"],
  "data-plane": [
    ...["nbd", "ublk", "uring", "engine", "diff-storage", "linux-block", "journal", "errors"],
  ],
  driver: [
    ...[
      "data-plane",
      "nbd",
      "ublk",
      "uring",
      "engine",
      "diff-storage",
      "linux-block",
      "event-queue",
    ],
    ...["journal", "api", "errors"],
  ],
  "api-server": ["api", "errors"],
  daemon: [
    "driver",
    "api-server",
    "event-queue",
    "nbd",
    "ublk",
    "uring",
    "linux-block",
    "api",
    "errors",
  ],
  client: ["api", "errors"],
  backup: ["client", "nbd", "ublk", "uring", "linux-block", "api", "errors"],
  blksnapctl: ["backup", "client", "linux-block", "api", "errors"],
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

for (const [at, [layer, allowed]] of Object.entries(ALLOWED).entries()) {
  const beneath = Object.keys(ALLOWED).slice(0, at);
  for (const other of allowed.filter((one) => !beneath.includes(one))) {
    problems.push(`tools/lint-layers.mjs: layer ${layer} does not stand above ${other}`);
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

/** The arrows as [from, to]. A branch (├ or └) begins at the name above it. */
function arrowsOf(picture) {
  const arrows = [];
  const lines = picture.split("\n");
  const namesIn = lines.map((line) => [...line.matchAll(/[a-z][a-z-]*/g)]);
  const covering = (row, column) =>
    namesIn[row].find(({ 0: name, index }) => index <= column && column < index + name.length);
  for (const [row, names] of namesIn.entries()) {
    const branch = lines[row].search(/[├└]/);
    let above = row;
    while (branch >= 0 && above >= 0 && !covering(above, branch)) above--;
    let last = branch >= 0 && above >= 0 ? covering(above, branch)[0] : undefined;
    let end = 0;
    for (const { 0: name, index } of names) {
      const between = lines[row].slice(end, index);
      if (between.includes("▶")) arrows.push([last, name]);
      if (between.includes("◀")) arrows.push([name, last]);
      last = name;
      end = index + name.length;
    }
  }
  return arrows;
}

const published = packages.filter((pkg) => pkg.manifest.private !== true);

function sectionOf(path) {
  return readFileSync(path, "utf8").split("\n## Packages\n")[1];
}

function checkPicture(path) {
  const [, picture] = /```\n([^`]*)```/.exec(sectionOf(path));
  const arrows = arrowsOf(picture);
  const shown = new Set(arrows.flat());
  for (const { manifest } of published) {
    const short = manifest.name.replace("@blksnap/", "");
    if (short !== "errors" && !shown.has(short))
      problems.push(`${path}: no ${short} in the picture`);
  }
  for (const [from, to] of arrows) {
    const full = (name) => (layerOfName.has(name) ? name : `@blksnap/${name}`);
    const dependencies = packages.find(({ manifest }) => manifest.name === full(from))?.manifest;
    if (dependencies?.dependencies?.[full(to)] === undefined) {
      problems.push(`${path}: the picture has ${from} import ${to}, which it does not`);
    }
  }
}

function checkTable(path) {
  const section = sectionOf(path);
  for (const { dir, manifest } of published) {
    if (!section.includes(`[\`${manifest.name}\`](packages/${dir})`)) {
      problems.push(`${path}: no ${manifest.name} in the table of packages`);
    }
  }
  for (const [, name, dir] of section.matchAll(/\[`([^`]+)`\]\(packages\/([\w-]+)\)/g)) {
    if (!packages.some((pkg) => pkg.dir === dir && pkg.manifest.name === name)) {
      problems.push(`${path}: there is no package ${name} in packages/${dir}`);
    }
  }
}
checkPicture("README.md");
checkPicture("CONTRIBUTING.md");
checkTable("README.md");
problems.push(...whereProblems(), ...sizeProblems(), ...linkProblems(), ...limitProblems());
problems.push(...syncProblems());

for (const problem of problems) console.error(problem);
console.log(`lint-layers: ${packages.length} packages, ${problems.length} problems`);
process.exit(problems.length === 0 ? 0 : 1);
