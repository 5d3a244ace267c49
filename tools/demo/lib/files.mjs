/** The files of the demo: taken from what npm installed, changed, and checked by sha256sum. */
import { randomBytes } from "node:crypto";
import {
  appendFileSync,
  closeSync,
  copyFileSync,
  mkdirSync,
  openSync,
  readdirSync,
  statSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { dirname, join, relative } from "node:path";
import { setImmediate as breathe } from "node:timers/promises";
import { mustRun, run } from "./program.mjs";

const FILE_BYTES_MAX = 2 ** 20;
/** The more, the larger the files. */
const CANDIDATES_PER_FILE = 3;
const NEW_FILES = 40;
const LARGE_FILE_BYTES = 4 * 2 ** 20;

/**
 * Regular files below a folder: of a selection spread over all, the larger ones.
 *
 * @returns {{path: string, size: number}[]}
 */
export function chooseFiles(folder, matches, max) {
  const found = readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && matches(entry.name))
    .map((entry) => join(entry.parentPath, entry.name))
    .filter((path) => !path.includes("/."))
    .sort();
  const stride = Math.max(1, Math.floor(found.length / (max * CANDIDATES_PER_FILE)));
  return found
    .filter((_, index) => index % stride === 0)
    .map((path) => ({ path, size: statSync(path).size }))
    .filter(({ size }) => size <= FILE_BYTES_MAX)
    .sort((one, other) => other.size - one.size)
    .slice(0, max);
}

/** Copies chosen files from one folder to another. @returns {Promise<string[]>} their names */
export async function fill(target, chosen, from) {
  const names = chosen.map(({ path }) => relative(from, path));
  for (const [index, { path }] of chosen.entries()) {
    const copy = join(target, names[index]);
    mkdirSync(dirname(copy), { recursive: true });
    copyFileSync(path, copy);
    await breathe();
  }
  return names;
}

/** A list for sha256sum --check of all files below a folder. */
export async function listChecksums(folder, listPath, signal) {
  const command = "find . -type f -print0 | sort -z | xargs -0 -r sha256sum";
  const list = await mustRun(["sh", "-c", command], { cwd: folder, signal });
  writeFileSync(listPath, list);
  return list.split("\n").length - 1;
}

/**
 * Compares a folder with a list: every file of the list, and no other.
 *
 * @returns {Promise<{same: number, changed: number, missing: number, added: number}>}
 */
export async function checkChecksums(folder, listPath, listed, signal) {
  const words = ["sha256sum", "--check", listPath];
  const { output } = await run(words, { cwd: folder, signal, env: { LC_ALL: "C" } });
  const count = (pattern) => output.match(pattern)?.length ?? 0;
  const missing = count(/: FAILED open or read$/gm);
  const present = (await mustRun(["find", ".", "-type", "f", "-printf", "x"], { cwd: folder }))
    .length;
  return {
    same: count(/: OK$/gm),
    changed: count(/: FAILED$/gm),
    missing,
    added: present - (listed - missing),
  };
}

/** Bytes in all files below a folder. */
export function folderBytes(folder) {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .reduce((sum, entry) => sum + statSync(join(entry.parentPath, entry.name)).size, 0);
}

function overwritePart(path) {
  const { size } = statSync(path);
  const fd = openSync(path, "r+");
  try {
    writeSync(fd, randomBytes(Math.max(1, size >> 1)), 0, undefined, size >> 2);
  } finally {
    closeSync(fd);
  }
}

/** One change per file, by its place in the list; the files in between stay as they are. */
const CHANGES = [
  (path) => overwritePart(path),
  (path) => unlinkSync(path),
  (path) => appendFileSync(path, "one more line\n"),
  (path) => truncateSync(path, statSync(path).size >> 1),
];
const CHANGE_EVERY = 2;

/** Overwrites, deletes, extends and shortens every other file, and adds new ones. */
export async function changeFiles(folder, names) {
  let changed = 0;
  for (let index = 0; index < names.length; index += CHANGE_EVERY) {
    CHANGES[changed % CHANGES.length](join(folder, names[index]));
    changed++;
    await breathe();
  }
  mkdirSync(join(folder, "new"));
  for (let index = 0; index < NEW_FILES; index++) {
    writeFileSync(join(folder, "new", `${index}.bin`), randomBytes(16 * 1024));
    await breathe();
  }
  writeFileSync(join(folder, "new", "large.bin"), randomBytes(LARGE_FILE_BYTES));
  return { changed, added: NEW_FILES + 1 };
}
