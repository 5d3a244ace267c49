// Compiles the addon in ./native of the calling package into ./build/Release.
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
const sources = readdirSync("native")
  .filter((file) => file.endsWith(".cc"))
  .map((file) => join("native", file));
const output = join("build", "Release", `${name}.node`);
mkdirSync(join("build", "Release"), { recursive: true });

const words = (text) => text.split(" ");
const args = [
  ...words("-std=c++20 -O2 -g -fPIC -shared -fvisibility=hidden -Wall -Wextra -Werror"),
  ...words("-DNAPI_VERSION=9 -DNAPI_CPP_EXCEPTIONS -DNODE_ADDON_API_DISABLE_DEPRECATED"),
  ...includes.flatMap((dir) => ["-isystem", dir.replaceAll('"', "")]),
  ...sources,
  ...words("-Wl,-Bstatic -luring -Wl,-Bdynamic -Wl,--exclude-libs,ALL"),
  "-o",
  output,
];
const compiler = process.env.CXX ?? "g++";
const run = spawnSync(compiler, args, { stdio: "inherit" });
if (run.error !== undefined || run.status !== 0) {
  console.error(
    `build-native: ${compiler} could not build ${output}. It needs a C++20 compiler and liburing's ` +
      "headers and static library (Debian: apt-get install g++ liburing-dev).",
  );
  process.exit(run.status || 1);
}
