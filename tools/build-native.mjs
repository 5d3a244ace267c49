// Compiles the addon in ./native of the calling package into ./build/Release, and a program beside it
// of each folder in ./native: NAME.node, NAME-FOLDER.
//
// One g++ call instead of node-gyp: no Python, no download of headers, works offline. liburing is
// linked statically, so that the built addon needs nothing of it at run time. A prebuilt binary
// that fits (prebuilds/) makes the install step a no-op, so that users need no compiler.
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync } from "node:fs";
import { createRequire } from "node:module";
import { basename, join } from "node:path";

const packageDir = process.cwd();
const name = basename(packageDir);
const duringInstall = process.env.npm_lifecycle_event === "install";
const prebuilt = join(packageDir, "prebuilds", `${process.platform}-${process.arch}.node`);
if (duringInstall && existsSync(prebuilt)) process.exit(0);

const require = createRequire(join(packageDir, "package.json"));
const includes = [require("node-api-headers").include_dir, require("node-addon-api").include_dir];
const words = (text) => text.split(" ");
const folder = join("build", "Release");
mkdirSync(folder, { recursive: true });

compile("native", join(folder, `${name}.node`), [
  ...words("-fPIC -shared -fvisibility=hidden -Wl,--exclude-libs,ALL"),
  ...words("-DNAPI_VERSION=9 -DNAPI_CPP_EXCEPTIONS -DNODE_ADDON_API_DISABLE_DEPRECATED"),
  ...includes.flatMap((dir) => ["-isystem", dir.replaceAll('"', "")]),
]);
for (const entry of readdirSync("native", { withFileTypes: true })) {
  if (!entry.isDirectory()) continue;
  compile(join("native", entry.name), join(folder, `${name}-${entry.name}`), []);
}

function compile(sourceFolder, output, more) {
  const sources = readdirSync(sourceFolder)
    .filter((file) => file.endsWith(".cc"))
    .map((file) => join(sourceFolder, file));
  const args = [
    ...words("-std=c++20 -O2 -g -Wall -Wextra -Werror"),
    ...more,
    ...sources,
    ...words("-Wl,-Bstatic -luring -Wl,-Bdynamic"),
    "-o",
    output,
  ];
  const compiler = process.env.CXX ?? "g++";
  const run = spawnSync(compiler, args, { stdio: "inherit" });
  if (run.error === undefined && run.status === 0) return;
  console.error(
    `build-native: ${compiler} could not build ${output}. It needs a C++20 compiler and liburing's ` +
      "headers and static library (Debian: apt-get install g++ liburing-dev).",
  );
  process.exit(run.status || 1);
}
