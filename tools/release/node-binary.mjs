/**
 * Node binaries of npm's registry: for another architecture, or for a package that carries its own. They are those of
 * nodejs.org, and are kept in .cache/node.
 */
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import semver from "semver";
import { createFolderAtOnce } from "../vm/index.mjs";
import { ROOT } from "./manifests.mjs";
import { npm } from "./pack.mjs";

const CACHE = join(ROOT, ".cache", "node");

/** The newest version that the registry has within the range. */
function resolve(name, range) {
  if (semver.valid(range) !== null) return range;
  const found = execFileSync(npm, ["view", `${name}@${range}`, "version", "--json"], {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "pipe"],
  });
  const versions = found.trim() === "" ? [] : [JSON.parse(found)].flat();
  const newest = semver.maxSatisfying(versions, "*");
  if (newest === null) throw new Error(`npm's registry has no ${name}@${range}`);
  return newest;
}

/**
 * @param {"x64" | "arm64"} architecture
 * @param {string} range a version, or what npm takes for a range: "24"
 * @returns {{ version: string, path: string, licensePath: string }}
 */
export function nodeBinary(architecture, range) {
  const name = `node-linux-${architecture}`;
  const version = resolve(name, range);
  const folder = join(CACHE, `${architecture}-${version}`);
  mkdirSync(CACHE, { recursive: true });
  if (!existsSync(folder)) {
    createFolderAtOnce(folder, (target) => {
      execFileSync(npm, ["pack", "--silent", `${name}@${version}`], { cwd: target });
      const archive = readdirSync(target).find((file) => file.endsWith(".tgz"));
      const files = ["package/bin/node", "package/LICENSE"];
      execFileSync("tar", ["-xzf", archive, "--no-same-owner", ...files], { cwd: target });
      renameSync(join(target, "package/bin/node"), join(target, "node"));
      renameSync(join(target, "package/LICENSE"), join(target, "LICENSE"));
      rmSync(join(target, "package"), { recursive: true });
      rmSync(join(target, archive));
    });
  }
  return { version, path: join(folder, "node"), licensePath: join(folder, "LICENSE") };
}
