/** The folder that caches expensive results (kernel, probes) between runs. */
import { mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

export const REPOSITORY = resolve(dirname(fileURLToPath(import.meta.url)), "../../..");

/** @returns {string} the existing cache folder */
export function cacheFolder() {
  const base = process.env.XDG_CACHE_HOME
    ? join(process.env.XDG_CACHE_HOME, "blksnap")
    : join(REPOSITORY, ".cache");
  const folder = join(base, "vm");
  mkdirSync(folder, { recursive: true });
  return folder;
}

/**
 * Fills a folder of the cache in one step: `fill` works in a temporary folder, which is then renamed. Runs that do this at the
 * same time never see half a folder, and there is no lock that a killed run could leave behind: the first one to finish wins.
 */
export function createFolderAtOnce(target, fill) {
  const temporary = mkdtempSync(`${target}.new-`);
  try {
    fill(temporary);
    renameSync(temporary, target);
  } catch (error) {
    if (error.code !== "ENOTEMPTY" && error.code !== "EEXIST") throw error;
  } finally {
    rmSync(temporary, { recursive: true, force: true });
  }
}

export function readCached(name) {
  try {
    return readFileSync(join(cacheFolder(), name), "utf8");
  } catch {
    return undefined;
  }
}

export function writeCached(name, text) {
  const target = join(cacheFolder(), name);
  const temporary = `${target}.new-${process.pid}`;
  writeFileSync(temporary, text);
  renameSync(temporary, target);
}
