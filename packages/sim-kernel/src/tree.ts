/** The tree of paths, and lookups in it. */
import { Errno, SystemError } from "./errno.js";
import type { Medium } from "./medium.js";
import { assertDirectory, Directory, type FileSystem, Link, type Node, TextFile } from "./nodes.js";

const LINKS_MAX = 40;

/** The result of a lookup. */
export interface Walked {
  /** Undefined if only the last name is missing. */
  readonly node: Node | undefined;
  readonly parent: Directory;
  readonly name: string;
  /** Without symbolic links. */
  readonly realPath: string;
}

export class Tree {
  readonly root: Directory;
  /** Number of the last disk that has appeared since the boot. */
  diskSequence = 0;

  constructor(root: Directory) {
    this.root = root;
  }

  /** @throws SystemError */
  walk(path: string, call: string, followLast = true): Walked {
    let links = 0;
    const left = namesOf(path);
    let at: Directory = this.root;
    const done: { readonly directory: Directory; readonly name: string }[] = [];
    for (;;) {
      const name = left.shift();
      if (name === undefined) {
        return { node: at, parent: done.at(-1)?.directory ?? at, name: "", realPath: pathOf(done) };
      }
      if (name === "..") {
        at = done.pop()?.directory ?? this.root;
        continue;
      }
      const node = at.lookup(name);
      const isLast = left.length === 0;
      const realPath = isLast ? pathOf([...done, { name }]) : "";
      if (node === undefined) {
        if (!isLast) throw new SystemError(Errno.ENOENT, call, path);
        return { node: undefined, parent: at, name, realPath };
      }
      if (node instanceof Link && (!isLast || followLast)) {
        if (++links > LINKS_MAX) throw new SystemError(Errno.ELOOP, call, path);
        if (node.leadsTo !== undefined) {
          if (!isLast) throw new SystemError(Errno.ENOTDIR, call, path);
          return { node: node.leadsTo, parent: at, name, realPath: node.target };
        }
        left.unshift(...namesOf(node.target));
        if (!node.target.startsWith("/")) continue;
        at = this.root;
        done.length = 0;
        continue;
      }
      if (isLast && !(node instanceof Directory)) return { node, parent: at, name, realPath };
      done.push({ directory: at, name });
      at = assertDirectory(node, call, path);
      if (isLast) return { node, parent: done.at(-1)?.directory ?? at, name, realPath };
    }
  }

  /** The medium that a call on this path waits for; undefined if there is none. */
  mediumAt(path: string): Medium | undefined {
    try {
      const { node, parent } = this.walk(path, "lookup", false);
      const { fs } = node ?? parent;
      return fs.isVolatile ? undefined : fs.medium;
    } catch (error) {
      if (error instanceof SystemError) return undefined;
      throw error;
    }
  }

  /** @throws SystemError ENOENT */
  node(path: string, call: string, followLast = true): Node {
    const { node } = this.walk(path, call, followLast);
    if (node === undefined) throw new SystemError(Errno.ENOENT, call, path);
    return node;
  }

  directory(path: string): Directory {
    return assertDirectory(this.node(path, "open"), "open", path);
  }

  /** Makes a directory and its missing parents, on the file system of the last existing one. */
  makeDirectory(path: string, fs?: FileSystem): Directory {
    let at = this.root;
    for (const name of namesOf(path)) {
      const next = at.lookup(name);
      if (next instanceof Directory) {
        at = next;
        continue;
      }
      const made = new Directory(fs ?? at.fs);
      at.set(name, made);
      at = made;
    }
    return at;
  }

  /** Makes a file of sysfs or procfs; replaces an existing one. */
  makeText(path: string, read: () => string, write?: (text: string) => number): void {
    const names = namesOf(path);
    const name = names.pop() as string;
    const directory = this.makeDirectory(`/${names.join("/")}`);
    directory.set(name, new TextFile(directory.fs, read, write));
  }
}

function namesOf(path: string): string[] {
  return path.split("/").filter((name) => name !== "" && name !== ".");
}

function pathOf(done: readonly { readonly name: string }[]): string {
  return `/${done.map(({ name }) => name).join("/")}`;
}
