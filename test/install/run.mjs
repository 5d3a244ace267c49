/** What a user gets who installs the packages from their tarballs, without this repository. */
import assert from "node:assert/strict";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { checkTarballs } from "../../tools/release/lint-packages.mjs";
import { ROOT } from "../../tools/release/manifests.mjs";
import { publishOrder } from "../../tools/release/release.mjs";
import { blocksOf, blocksOfInstalled, programsOf } from "./examples.mjs";
import { keepProject } from "./kept.mjs";
import { installAll, withStranger } from "./project.mjs";
import { startRegistry } from "./registry.mjs";

const PARALLEL = 2;
const { devDependencies } = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8"));
const TYPESCRIPT = ["typescript", "@types/node"].map((name) => `${name}@${devDependencies[name]}`);
/** What examples get as arguments; most need none. */
const ARGUMENTS = { "copy-file.mjs": ["package.json", "copy"] };
/** In the first comment of an example that needs ublk or a daemon. */
const NEEDS_MORE = /^(?: \*|\/\*\*|\/\/).*\b(Needs|blksnapd|rublk)\b/m;

const counts = { passed: 0, failed: 0 };

async function test(name, body) {
  try {
    await body();
    counts.passed++;
    console.log(`✓ ${name}`);
  } catch (error) {
    counts.failed++;
    console.log(`✗ ${name}\n${error.stack}`);
  }
}

async function inParallel(items, use) {
  const rest = [...items];
  const work = async () => {
    for (let item = rest.shift(); item !== undefined; item = rest.shift()) await use(item);
  };
  await Promise.all(Array.from({ length: PARALLEL }, work));
}

async function succeeds(stranger, folder, command, env) {
  const { status, output, errors } = await stranger.run(folder, command, env);
  assert.equal(status, 0, `${command.join(" ")}: ${errors}${output}`);
  return output;
}

/** Installs one package in an empty folder, and imports all that it exports. */
async function installAlone(stranger, { name, path, manifest }) {
  const folder = stranger.project(name.replace("/", "-"));
  const output = await succeeds(stranger, folder, ["npm", "install", path]);
  assert.doesNotMatch(output, /warn/i);
  const lock = JSON.parse(readFileSync(join(folder, "package-lock.json"), "utf8"));
  for (const [installed, { hasInstallScript }] of Object.entries(lock.packages)) {
    assert.notEqual(hasInstallScript, true, `${installed} runs a script when it is installed`);
  }
  const specifiers = Object.keys(manifest.exports)
    .filter((key) => !key.endsWith(".json"))
    .map((key) => name + key.slice(1));
  const text = specifiers.map((specifier) => `await import("${specifier}");`).join("");
  await succeeds(stranger, folder, ["node", "--input-type=module", "--eval", text]);
}

/** Sources that the source maps of a package name, but for those of others that are bundled. */
function missingSources(project, name) {
  const dist = join(project, "node_modules", name, "dist");
  const maps = readdirSync(dist, { recursive: true }).filter((path) => path.endsWith(".map"));
  assert.ok(maps.length > 0, `${name} has source maps`);
  return maps.flatMap((map) => {
    const { sources } = JSON.parse(readFileSync(join(dist, map), "utf8"));
    return sources
      .filter((source) => !/node_modules\/(?!@blksnap\/)/.test(source))
      .map((source) => resolve(dist, dirname(map), source))
      .filter((path) => !existsSync(path));
  });
}

function compilerOptions(more) {
  return { target: "es2023", module: "nodenext", types: ["node"], skipLibCheck: false, ...more };
}

/** Compiles modules in a folder of the project. */
async function compile(stranger, project, folder, files, options) {
  mkdirSync(join(project, folder));
  for (const [file, text] of Object.entries(files))
    writeFileSync(join(project, folder, file), text);
  const config = { compilerOptions: compilerOptions({ outDir: "out", ...options }) };
  writeFileSync(join(project, folder, "tsconfig.json"), JSON.stringify(config));
  await succeeds(stranger, project, ["node_modules/.bin/tsc", "--project", folder]);
  return join(project, folder, "out");
}

function sourcesOf(blocks) {
  return Object.fromEntries(blocks.map(({ name, code }) => [`${name}.mts`, code]));
}

/** Everything that the packages export, compiled with all checks on. */
function importAll(tarballs) {
  const specifiers = tarballs.flatMap(({ name, manifest }) =>
    Object.keys(manifest.exports)
      .filter((key) => !key.endsWith(".json"))
      .map((key) => name + key.slice(1)),
  );
  return specifiers
    .map((specifier, index) => `export * as m${index} from "${specifier}";\n`)
    .join("");
}

async function testTypes({ stranger, tarballs }, project, blocks) {
  await test("all types are accepted by a strict compiler", async () => {
    const options = { strict: true, exactOptionalPropertyTypes: true };
    await compile(stranger, project, "types", { "all.mts": importAll(tarballs) }, options);
  });
  await test("examples of READMEs are TypeScript, too, and run", async () => {
    const strict = sourcesOf(blocks.filter(({ language }) => language === "ts"));
    await compile(stranger, project, "strict", strict, { strict: true });
    const all = sourcesOf(blocks);
    const out = await compile(stranger, project, "loose", all, { strict: false });
    const here = blocks.filter(({ needsDevice }) => !needsDevice);
    await inParallel(here, ({ name }) =>
      succeeds(stranger, project, ["node", join(out, `${name}.mjs`)]),
    );
  });
}

async function testExamples({ stranger, tarballs }, project, blocks) {
  await test("examples of READMEs run as JavaScript", async () => {
    const here = blocks.filter(({ needsDevice, language }) => language === "js" && !needsDevice);
    assert.ok(here.length >= 5);
    await inParallel(here, async ({ name, code }) => {
      writeFileSync(join(project, `${name}.mjs`), code);
      await succeeds(stranger, project, ["node", `${name}.mjs`]);
    });
  });
  const programs = tarballs.flatMap(({ name }) => programsOf(project, name));
  const here = programs.filter((path) => !NEEDS_MORE.test(readFileSync(path, "utf8")));
  await test(`example programs run: ${here.map((path) => basename(path)).join(", ")}`, () =>
    inParallel(here, (path) =>
      succeeds(stranger, project, ["node", path, ...(ARGUMENTS[basename(path)] ?? [])]),
    ));
}

/** Publishes two packages, one of which needs the other, to a registry that has none. */
async function testPublishing(stranger, tarballs) {
  const ordered = publishOrder(tarballs);
  ordered.forEach(({ name, manifest }, index) => {
    const later = ordered
      .slice(index + 1)
      .filter((other) => other.name in (manifest.dependencies ?? {}));
    assert.deepEqual(later, [], `${name} is published when all that it needs is there`);
  });
  const two = ordered.filter(({ name }) => /\/(ublk|uring)$/.test(name));
  const registry = await startRegistry([]);
  try {
    const host = new URL(registry.url).host;
    const options = ["--registry", registry.url, `--//${host}/:_authToken=none`, "--tag", "next"];
    const module = join(ROOT, "tools/release/release.mjs");
    const text = `import { publish } from ${JSON.stringify(module)};
      publish(${JSON.stringify(two)}, ${JSON.stringify(options)});`;
    const command = ["node", "--input-type=module", "--eval", text];
    await succeeds(stranger, stranger.folder, command, {
      "npm_config_@blksnap:registry": registry.url,
    });
    const { published } = registry;
    assert.deepEqual(
      published.map(({ _id, access, "dist-tags": tags }) => [_id, access, Object.keys(tags)]),
      two.map(({ name }) => [name, "public", ["next"]]),
    );
  } finally {
    registry.close();
  }
}

await withStranger(async (world) => {
  const { stranger, tarballs } = world;
  await test("the tarballs have what they should have, and no more", async () => {
    assert.deepEqual(await checkTarballs(tarballs), []);
  });
  await test("there is no compiler here", async () => {
    const { output } = await stranger.run("/", ["sh", "-c", "command -v g++ cc make python3 git"]);
    assert.equal(output, "");
  });
  await test("each package is installed alone in an empty folder, and imported", () =>
    inParallel(tarballs, (tarball) => installAlone(stranger, tarball)));

  await test("a release publishes what is needed first, for everybody", () =>
    testPublishing(stranger, tarballs));

  let project;
  await test("all are installed in one project", async () => {
    project = await installAll(world);
    keepProject(project);
    await succeeds(stranger, project, ["npm", "install", "--save-dev", ...TYPESCRIPT]);
  });
  if (project === undefined) return;
  const names = tarballs.map(({ name }) => name);
  for (const { name, manifest } of tarballs) {
    for (const program of Object.keys(manifest.bin ?? {})) {
      await test(`npx ${program}: --version and --help`, async () => {
        const version = await succeeds(stranger, project, ["npx", program, "--version"]);
        assert.match(version, new RegExp(`\\b${manifest.version}\\b`));
        const help = await succeeds(stranger, project, ["npx", program, "--help"]);
        assert.match(help, new RegExp(`usage: ${program}`, "i"));
      });
    }
    await test(`source maps of ${name} lead to sources that are installed`, () => {
      assert.deepEqual(missingSources(project, name), []);
    });
  }
  await test("blksnapd has with it what --install-units writes", () => {
    for (const folder of ["systemd", "system-generators", "udev", "tmpfiles", "libexec"]) {
      const here = readdirSync(join(ROOT, "packages/daemon", folder)).sort();
      assert.ok(here.length > 0);
      assert.deepEqual(readdirSync(join(project, "node_modules/blksnapd", folder)).sort(), here);
    }
  });
  const blocks = [
    ...blocksOfInstalled(project, names),
    ...blocksOf(readFileSync(join(ROOT, "docs/typescript.md"), "utf8"), "typescript"),
  ];
  await testExamples(world, project, blocks);
  await testTypes(world, project, blocks);
});
console.log(`${counts.passed} passed, ${counts.failed} failed`);
process.exitCode = counts.failed === 0 ? 0 : 1;
