/**
 * Compiles the addon, and a program beside it of each folder here: uring.node, uring-FOLDER.
 *
 *   node native/build.mjs                               for this machine, into build/Release
 *   node native/build.mjs --arch arm64 --output FOLDER --liburing FOLDER
 *
 * One compiler call instead of node-gyp: no Python, no download of headers, works offline. liburing is
 * linked statically, so that what is built needs nothing of it at run time. Debug information goes to
 * files beside the stripped ones, where debuggers look for it.
 */
import { spawnSync } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const NAME = "uring";
const HERE = dirname(fileURLToPath(import.meta.url));
/** GNU's names of architectures for cross-builds. */
const GNU_PREFIXES = { x64: "x86_64-linux-gnu-", arm64: "aarch64-linux-gnu-" };
const USAGE = `Usage: node native/build.mjs [OPTION]...

  --output FOLDER     where the binaries go (build/Release)
  --arch ARCH         x64 or arm64 (this machine's); another one needs its cross compiler
  --liburing FOLDER   has include/ and lib/liburing.a (the system's)

CXX and OBJCOPY name other tools.`;
const words = (text) => text.split(" ");

function fail(text, status = 1) {
  console.error(`build: ${text}`);
  process.exit(status);
}

function options() {
  try {
    return parseArgs({
      options: {
        output: { type: "string", default: join(HERE, "..", "build", "Release") },
        arch: { type: "string", default: process.arch },
        liburing: { type: "string" },
        help: { type: "boolean", short: "h" },
      },
    }).values;
  } catch (error) {
    return fail(`${error.message}\n\n${USAGE}`, 2);
  }
}

const { output, arch, liburing, help } = options();
if (help) {
  console.log(USAGE);
  process.exit(0);
}
const prefix = arch === process.arch ? "" : GNU_PREFIXES[arch];
if (prefix === undefined) fail(`no cross compiler for ${arch} is known`, 2);
const compiler = process.env.CXX ?? `${prefix}g++`;
const objcopy = process.env.OBJCOPY ?? `${prefix}objcopy`;

function headers() {
  const require = createRequire(import.meta.url);
  try {
    return [require("node-api-headers").include_dir, require("node-addon-api").include_dir];
  } catch {
    const { devDependencies } = JSON.parse(readFileSync(join(HERE, "..", "package.json"), "utf8"));
    const wanted = ["node-addon-api", "node-api-headers"].map((name) =>
      [name, devDependencies[name]].join("@"),
    );
    return fail(`Node's headers are missing. Get them: npm install --no-save ${wanted.join(" ")}`);
  }
}

function run(command, args, what) {
  const { error, status } = spawnSync(command, args, { stdio: "inherit" });
  if (error === undefined && status === 0) return;
  fail(
    `${command} could not build ${what}. It needs a C++20 compiler, binutils, and liburing's headers ` +
      "and static library (Debian: apt-get install g++ liburing-dev).",
  );
}

function compile(sourceFolder, file, more) {
  const sources = readdirSync(sourceFolder)
    .filter((name) => name.endsWith(".cc"))
    .map((name) => join(sourceFolder, name));
  const library = liburing === undefined ? [] : [`-L${join(liburing, "lib")}`];
  const include = liburing === undefined ? [] : ["-isystem", join(liburing, "include")];
  const args = [
    ...words("-std=c++20 -O2 -g -Wall -Wextra -Werror"),
    // Paths in debug information and assertions are relative to the package.
    `-ffile-prefix-map=${resolve(HERE, "..")}=.`,
    ...more,
    ...include,
    ...sources,
    ...library,
    ...words("-Wl,-Bstatic -luring -Wl,-Bdynamic"),
    "-o",
    file,
  ];
  run(compiler, args, file);
  run(objcopy, ["--only-keep-debug", file, `${file}.debug`], file);
  run(objcopy, ["--strip-all", `--add-gnu-debuglink=${file}.debug`, file], file);
}

const folder = resolve(output);
mkdirSync(folder, { recursive: true });
compile(HERE, join(folder, `${NAME}.node`), [
  ...words("-fPIC -shared -fvisibility=hidden -Wl,--exclude-libs,ALL"),
  ...words("-DNAPI_VERSION=9 -DNAPI_CPP_EXCEPTIONS -DNODE_ADDON_API_DISABLE_DEPRECATED"),
  ...headers().flatMap((path) => ["-isystem", path.replaceAll('"', "")]),
]);
for (const entry of readdirSync(HERE, { withFileTypes: true })) {
  if (!entry.isDirectory()) continue;
  compile(join(HERE, entry.name), join(folder, `${NAME}-${entry.name}`), []);
}
