/**
 * The hooks of a folder, in the order of their names, and whether they may be run. Hooks run as root, so no other
 * user may be able to write them or to replace them.
 */
import { lstat, readdir, realpath, stat } from "node:fs/promises";
import { dirname, join } from "node:path";

/** The rule of run-parts, which excludes leftovers of editors and packagers. */
const HOOK_NAME = /^[A-Za-z0-9_][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)?$/;
const LEFT_BEHIND = /\.(bak|old|orig|rpmsave|rpmnew|rpmorig|dpkg-[a-z]+|ucf-[a-z]+|swp|tmp)$/;
const EXECUTABLE = 0o111;
const WRITABLE_BY_OTHERS = 0o022;
/** A sticky folder: only its owner may replace a file. */
const STICKY = 0o1000;

export interface Hook {
  /** Of the file. */
  readonly name: string;
  readonly path: string;
  /** Why it may not be run; undefined if it may. */
  readonly distrust: string | undefined;
}

/**
 * None if there is no folder. Files that are not executable are not hooks. A file that cannot be examined may be one,
 * and is not skipped: otherwise a database would silently stay unquiesced.
 * @throws the error of readdir(2)
 */
export async function hooksIn(directory: string): Promise<Hook[]> {
  const hooks: Hook[] = [];
  for (const name of await namesIn(directory)) {
    const path = join(directory, name);
    const found = await stat(path).catch((error: Error) => error);
    if (found instanceof Error) {
      const isGone = await lstat(path).then(
        () => false,
        ({ code }: NodeJS.ErrnoException) => code === "ENOENT",
      );
      if (!isGone) hooks.push({ name, path, distrust: `it cannot be examined: ${found.message}` });
    } else if (found.isFile() && (found.mode & EXECUTABLE) !== 0) {
      hooks.push({ name, path, distrust: await distrustOf(path) });
    }
  }
  return hooks;
}

async function namesIn(directory: string): Promise<string[]> {
  try {
    const names = await readdir(directory);
    return names.filter((name) => HOOK_NAME.test(name) && !LEFT_BEHIND.test(name)).sort();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw error;
  }
}

/** Checks the file, the target of links, and all folders above both. */
async function distrustOf(path: string): Promise<string | undefined> {
  try {
    const real = await realpath(path);
    for (const one of new Set([real, ...foldersAbove(real), ...foldersAbove(path)])) {
      const { uid, mode } = await stat(one);
      const isMine = uid === 0 || uid === process.geteuid?.();
      if (!isMine) return `${one} belongs to user ${uid}, not to root`;
      const isSticky = one !== real && (mode & STICKY) !== 0;
      if ((mode & WRITABLE_BY_OTHERS) !== 0 && !isSticky)
        return `${one} is writable by users other than root`;
    }
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
}

function foldersAbove(path: string): string[] {
  const folders: string[] = [];
  for (let at = dirname(path); ; at = dirname(at)) {
    folders.push(at);
    if (at === dirname(at)) return folders;
  }
}
