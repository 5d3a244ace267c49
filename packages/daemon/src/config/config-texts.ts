/**
 * The configuration files, in the order in which they count, and their contents.
 *
 * ```
 *   /etc/blksnap/blksnap.toml          first, optional
 *   /etc/blksnap/blksnap.toml.d/*.toml then, by name; a later setting replaces an earlier one
 * ```
 */
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { DAEMON_SETTINGS } from "@blksnap/api";
import { userConfigPath } from "../user-paths.js";
import type { ConfigProblem } from "./config-problem.js";

export interface ConfigText {
  readonly path: string;
  readonly text: string;
}

const FILE_MAX_BYTES = 2 ** 20;
const FILES_MAX = 100;

/** The readable files, and errors of the others. The default file may be missing. */
export function readConfigTexts(path: string): {
  readonly texts: ConfigText[];
  readonly problems: ConfigProblem[];
} {
  const texts: ConfigText[] = [];
  const problems: ConfigProblem[] = [];
  const mayBeMissing = [DAEMON_SETTINGS.config.default, userConfigPath()].includes(path);
  const dropIns = namesIn(`${path}.d`, problems);
  if (dropIns.length > FILES_MAX) {
    const what = `${dropIns.length} files *.toml, but at most ${FILES_MAX} are read`;
    problems.push({ path: `${path}.d`, severity: "error", what, hint: "Merge some of them" });
  }
  for (const file of [path, ...dropIns.slice(0, FILES_MAX)]) {
    try {
      texts.push({ path: file, text: textOf(file) });
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException;
      if (code === "ENOENT" && file === path && mayBeMissing) continue;
      const what = `cannot be read: ${code ?? message}`;
      problems.push({ path: file, severity: "error", what, hint: "Check its name and mode" });
    }
  }
  return { texts, problems };
}

function namesIn(folder: string, problems: ConfigProblem[]): string[] {
  try {
    const names = readdirSync(folder).filter((name) => /^[^.].*\.toml$/.test(name));
    return names.sort().map((name) => join(folder, name));
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code !== "ENOENT" && code !== "ENOTDIR") {
      const what = `cannot be read: ${code ?? message}`;
      problems.push({ path: folder, severity: "error", what, hint: "Check its mode" });
    }
    return [];
  }
}

/** @throws Error if it is not a text of a sensible size */
function textOf(path: string): string {
  const stats = statSync(path);
  if (stats.isDirectory()) throw new Error("it is a folder");
  if (stats.size > FILE_MAX_BYTES) throw new Error(`it has more than ${FILE_MAX_BYTES} bytes`);
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(readFileSync(path));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ERR_ENCODING_INVALID_ENCODED_DATA") throw error;
    throw new Error("it is not UTF-8", { cause: error });
  }
}
