/**
 * Checks the list "Where does it go?" of CONTRIBUTING.md: its files exist, kinds are distinguished nowhere else, and
 * tests lie where their sources do. Properties that the compiler and unit tests ensure are not checked again.
 */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";

/** Changes that a newcomer must find. */
const WANTED = [
  ...["kind of store", "event", "setting", "metric", "verb", "request"],
  ...["entry of a journal", "name of an error", "state file", "time-out"],
];

/** Text that only the named files may contain. */
const ONLY_IN = [
  {
    what: "the word of a store in memory",
    pattern: /"memory:"/,
    where: /^packages\/[\w-]+\/src\//,
    files: ["packages/api/src/store-kinds.ts"],
  },
  {
    what: "a comparison with a kind of store",
    pattern: /\bkind [!=]== "(file|directory|block|memory)"/,
    where: /^packages\/diff-storage\/src\//,
    files: ["packages/diff-storage/src/store-kinds.ts"],
  },
  {
    what: "a time limit",
    pattern: /^(export )?const [A-Z_]+_MS\b/m,
    where: /^packages\/driver\/src\//,
    files: ["packages/driver/src/time-limits.ts"],
  },
  {
    what: "the name of a state file",
    pattern:
      /["`/^](tracker|snapshot|cbt|area|blksnap-store|exchange)-(["`([]|\$\{)|"\.(record|new|journal)/,
    where: /^packages\/(driver|daemon)\/src\//,
    files: ["packages/driver/src/records/file-names.ts"],
  },
];

/** Packages whose `test` has the folders of `src`. */
const USED = [
  {
    what: "a kind of event that nothing creates",
    table: "packages/api/src/daemon-event-schemas.ts",
    names: /\bkind\(\s*"(\w+)"/g,
    where: /^packages\/daemon\/src\//,
    use: (name) => `"${name}"`,
  },
  ...["setting-table", "daemon-settings"].map((file) => ({
    what: "a setting without effect",
    table: `packages/api/src/${file}.ts`,
    names: /^ {2}(\w+): \{\n {4}option: "([\w-]+)"/gm,
    where: /^packages\/(daemon|driver)\/src\//,
    use: (name, option) => `\\b${name}\\b|"${option}"`,
  })),
  {
    what: "an error that nothing throws",
    table: "packages/api/src/errors.ts",
    names: /^ {2}([A-Z][A-Z_]+): (?:failed|misused)\(/gm,
    where: /^packages\/[\w-]+\/src\//,
    use: (name) => `\\b${name}\\b`,
  },
  {
    what: "a state file that nothing opens",
    table: "packages/driver/src/records/file-names.ts",
    names: /^ {2}(\w+): (?:new FileKind|"([^"]+)")/gm,
    where: /^packages\/(driver|daemon)\/src\//,
    // The supervisor names one of them without the driver.
    use: (name, literal) => `(StateFile|KeptFile)\\.${name}\\b|"${literal}"`,
  },
];

/** Packages whose `test` has the folders of `src`. */
const MIRRORED = ["driver", "linux-block"];
/** Further folders of `test`: simulations, and what tests of several folders share. */
const FURTHER_FOLDER = /^(support|([\w-]+-)?sim)$/;

function isThere(path) {
  if (!path.includes("*")) return existsSync(path);
  const [start, end] = basename(path).split("*");
  const names = existsSync(dirname(path)) ? readdirSync(dirname(path)) : [];
  return names.some((name) => name.startsWith(start) && name.endsWith(end));
}

function sources() {
  return readdirSync("packages").flatMap((dir) => {
    const folder = join("packages", dir, "src");
    const names = existsSync(folder) ? readdirSync(folder, { recursive: true }) : [];
    return names.filter((name) => name.endsWith(".ts")).map((name) => join(folder, name));
  });
}

function filesOf(folder) {
  return readdirSync(folder, { recursive: true }).filter((name) => name.endsWith(".ts"));
}

function mirrorProblems(dir) {
  const folder = join("packages", dir, "test");
  const sourceNames = filesOf(join("packages", dir, "src"));
  const sourceFolders = new Set(sourceNames.map((name) => dirname(name)));
  const problems = [];
  for (const name of filesOf(folder)) {
    const place = dirname(name);
    if (!sourceFolders.has(place) && !FURTHER_FOLDER.test(place)) {
      problems.push(`${join(folder, name)}: packages/${dir}/src has no folder ${place}`);
    }
    if (!name.endsWith(".test.ts")) continue;
    const subject = basename(name).replace(".test.ts", ".ts");
    const sources = sourceNames.filter((source) => basename(source) === subject);
    if (sources.length > 0 && !sources.some((source) => dirname(source) === place)) {
      problems.push(
        `${join(folder, name)}: belongs in the folder of packages/${dir}/src/${sources[0]}`,
      );
    }
  }
  return problems;
}

function unusedProblems() {
  const all = sources().map((path) => ({ path, text: readFileSync(path, "utf8") }));
  return USED.flatMap(({ what, table, names, where, use }) => {
    const code = all.filter(({ path }) => where.test(path) && path !== table);
    const rows = [...readFileSync(table, "utf8").matchAll(names)].map(([, ...row]) => row);
    if (rows.length === 0) return [`${table}: lint-where finds no row of it`];
    const unused = rows.filter((row) => {
      const pattern = new RegExp(use(...row));
      return !code.some(({ text }) => pattern.test(text));
    });
    return unused.map(([name]) => `${table}: ${name} is ${what}`);
  });
}

/** What is not as CONTRIBUTING.md says. */
export function whereProblems() {
  const [, section] = readFileSync("CONTRIBUTING.md", "utf8").split("Where does it go?");
  const rows = /\n\n(\|[^\n]*\n)+/.exec(section)[0].trim().split("\n").slice(2);
  const cells = rows.map((row) => row.split("|").map((cell) => cell.trim()));
  const problems = WANTED.filter((change) => !cells.some(([, name]) => name.includes(change))).map(
    (change) => `CONTRIBUTING.md: does not say where a new ${change} goes`,
  );
  for (const [, name, where] of cells) {
    const paths = [...where.matchAll(/`([\w-]+\/[\w./*-]+)`/g)].map(([, path]) => path);
    if (paths.length === 0) problems.push(`CONTRIBUTING.md: names no file for ${name}`);
    for (const path of paths.filter((one) => !isThere(join("packages", one)))) {
      problems.push(`CONTRIBUTING.md: for ${name} it names packages/${path}, which is not there`);
    }
  }
  for (const path of sources()) {
    const text = readFileSync(path, "utf8");
    for (const { what, pattern, where, files } of ONLY_IN) {
      if (!where.test(path) || files.includes(path) || !pattern.test(text)) continue;
      problems.push(`${path}: has ${what}, which belongs in ${files.join(", ")}`);
    }
  }
  const catalog = [
    "catalog",
    "catalog-backups",
    "catalog-mounts",
    "catalog-nbd",
    "catalog-trackers",
  ]
    .map((name) => readFileSync(`packages/blksnapctl/src/${name}.ts`, "utf8"))
    .join("\n");
  for (const name of readdirSync("packages/blksnapctl/src/verbs")) {
    if (catalog.includes(`./verbs/${name.replace(/ts$/, "js")}`)) continue;
    problems.push(`packages/blksnapctl/src/verbs/${name}: no verb of a catalog is in there`);
  }
  problems.push(...unusedProblems());
  problems.push(...MIRRORED.flatMap(mirrorProblems));
  return problems;
}
