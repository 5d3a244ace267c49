/** System calls on paths and descriptors, made by the running process. */
import { constants } from "node:fs";
import { Errno, SystemError } from "./errno.js";
import type { SimMachine } from "./machine.js";
import { Io } from "./medium.js";
import { Directory, EventCounter, Link, type Node, RegularFile, TextFile } from "./nodes.js";
import { OpenFile } from "./process.js";

const { O_CREAT, O_EXCL, O_TRUNC, O_DIRECTORY, O_NOFOLLOW } = constants;
/** O_TMPFILE without O_DIRECTORY. */
const O_TMPFILE_BIT = 0o20000000;
const ENCODER = new TextEncoder();

const FLAGS: Readonly<Record<string, number>> = {
  r: constants.O_RDONLY,
  "r+": constants.O_RDWR,
  w: constants.O_WRONLY | O_CREAT | O_TRUNC,
  "w+": constants.O_RDWR | O_CREAT | O_TRUNC,
  wx: constants.O_WRONLY | O_CREAT | O_EXCL | O_TRUNC,
};

export class Files {
  readonly #machine: SimMachine;

  constructor(machine: SimMachine) {
    this.#machine = machine;
  }

  open(path: string, how: number | string = "r", permissions = 0o666): number {
    const flags = typeof how === "number" ? how : (FLAGS[how] as number);
    const node = this.#nodeToOpen(path, flags, permissions);
    if ((flags & O_TRUNC) !== 0 && node instanceof RegularFile) node.content.resize(0);
    const { process } = this.#machine;
    return process.addFile(new OpenFile(node, path, flags));
  }

  #nodeToOpen(path: string, flags: number, permissions: number): Node {
    const { tree } = this.#machine;
    if ((flags & O_TMPFILE_BIT) !== 0) {
      const directory = tree.directory(path);
      const file = new RegularFile(directory.fs, permissions, this.#machine.random);
      file.links = 0;
      return file;
    }
    const follow = (flags & O_NOFOLLOW) === 0 && (flags & O_EXCL) === 0;
    const walked = tree.walk(path, "open", follow);
    const { node, parent, name } = walked;
    if (node === undefined) {
      if ((flags & O_CREAT) === 0) throw new SystemError(Errno.ENOENT, "open", path);
      const file = new RegularFile(parent.fs, permissions & ~0o022, this.#machine.random);
      parent.set(name, file);
      this.#touch(file);
      return file;
    }
    const mustBeNew = (flags & (O_CREAT | O_EXCL)) === (O_CREAT | O_EXCL);
    if (mustBeNew) throw new SystemError(Errno.EEXIST, "open", path);
    if (node instanceof Link) {
      if ((flags & O_NOFOLLOW) !== 0) throw new SystemError(Errno.ELOOP, "open", path);
      return tree.node(path, "open");
    }
    if (node instanceof Directory && (flags & 3) !== 0) {
      throw new SystemError(Errno.EISDIR, "open", path);
    }
    if (!(node instanceof Directory) && (flags & O_DIRECTORY) !== 0) {
      throw new SystemError(Errno.ENOTDIR, "open", path);
    }
    return node;
  }

  close(fd: number): void {
    this.#machine.process.closeFile(fd);
  }

  /** For data in memory: does not wait. */
  read(fd: number, into: Uint8Array, positionBytes: number | null): number {
    const open = this.#machine.process.file(fd, "read");
    const at = positionBytes ?? open.positionBytes;
    const { node } = open;
    let count: number;
    if (node instanceof TextFile) {
      const bytes = ENCODER.encode(node.text()).subarray(at, at + into.length);
      into.set(bytes);
      count = bytes.length;
    } else if (node instanceof RegularFile) {
      if (open.isDirect && (at % 512 !== 0 || into.length % 512 !== 0)) {
        throw new SystemError(Errno.EINVAL, "read");
      }
      count = node.content.read(at, into);
    } else {
      throw new SystemError(Errno.EINVAL, "read", open.path);
    }
    if (positionBytes === null) open.positionBytes += count;
    return count;
  }

  write(fd: number, from: Uint8Array, positionBytes: number | null): number {
    const open = this.#machine.process.file(fd, "write");
    const { node } = open;
    if (node instanceof EventCounter) {
      node.add(new DataView(from.buffer, from.byteOffset, 8).getBigUint64(0, true));
      return 8;
    }
    if (node instanceof TextFile) {
      const status = node.write(new TextDecoder().decode(from));
      if (status < 0) throw new SystemError(-status, "write", open.path);
      return status;
    }
    if (!(node instanceof RegularFile)) throw new SystemError(Errno.EINVAL, "write", open.path);
    const at = positionBytes ?? open.positionBytes;
    if (at + from.length > node.fs.capacityBytes) {
      throw new SystemError(Errno.ENOSPC, "write", open.path);
    }
    node.content.write(at, from);
    this.#touch(node);
    if (positionBytes === null) open.positionBytes += from.length;
    return from.length;
  }

  /** I/O that takes time. @returns the call's result, or rejects with its error */
  transfer(
    fd: number,
    kind: "read" | "write" | "sync",
    data: Uint8Array | undefined,
    positionBytes: number | null,
    call: string,
  ): Promise<number> {
    const { process } = this.#machine;
    const open = process.file(fd, call);
    const at = positionBytes ?? open.positionBytes;
    const { node } = open;
    if (node instanceof TextFile || node instanceof EventCounter) {
      if (kind === "sync") return this.#machine.later(() => 0);
      return this.#machine.later(() =>
        kind === "read"
          ? this.read(fd, data as Uint8Array, positionBytes)
          : this.write(fd, data as Uint8Array, positionBytes),
      );
    }
    const release = process.use(open);
    return new Promise((resolve, reject) => {
      const done = (result: number): void => {
        if (!process.isAlive) return;
        release();
        if (positionBytes === null && result > 0) open.positionBytes += result;
        if (kind === "write" && node instanceof RegularFile) this.#touch(node);
        if (result >= 0) resolve(result);
        else reject(new SystemError(-result, call, open.path));
      };
      const length = data?.length ?? 0;
      const io = new Io(kind, at, length, data, false, (result) =>
        this.#machine.scheduler.after(1, () => done(result), process, true),
      );
      const status = open.start(io, process);
      if (status < 0) this.#machine.scheduler.after(1, () => done(status), process, true);
    });
  }

  truncate(fd: number, lengthBytes: number): void {
    const { node, path } = this.#machine.process.file(fd, "ftruncate");
    if (!(node instanceof RegularFile)) throw new SystemError(Errno.EINVAL, "ftruncate", path);
    node.content.resize(lengthBytes);
    this.#touch(node);
  }

  readdir(path: string): string[] {
    const { node } = this.#machine.tree.walk(path, "scandir");
    if (node === undefined) throw new SystemError(Errno.ENOENT, "scandir", path);
    if (!(node instanceof Directory)) throw new SystemError(Errno.ENOTDIR, "scandir", path);
    return node.names();
  }

  readlink(path: string): string {
    const node = this.#machine.tree.node(path, "readlink", false);
    if (!(node instanceof Link)) throw new SystemError(Errno.EINVAL, "readlink", path);
    return node.target;
  }

  realpath(path: string): string {
    const { node, realPath } = this.#machine.tree.walk(path, "realpath");
    if (node === undefined) throw new SystemError(Errno.ENOENT, "realpath", path);
    return realPath;
  }

  mkdir(path: string, recursive: boolean, permissions = 0o777): string | undefined {
    const { tree } = this.#machine;
    if (recursive) return this.#makeAll(path, permissions);
    const { node, parent, name } = tree.walk(path, "mkdir");
    if (node !== undefined) throw new SystemError(Errno.EEXIST, "mkdir", path);
    parent.set(name, new Directory(parent.fs, permissions));
    return undefined;
  }

  #makeAll(path: string, permissions: number): string | undefined {
    let at = "";
    let first: string | undefined;
    for (const name of path.split("/").filter((part) => part !== "")) {
      at += `/${name}`;
      const { node, parent, name: last } = this.#machine.tree.walk(at, "mkdir");
      if (node instanceof Directory) continue;
      if (node !== undefined) throw new SystemError(Errno.EEXIST, "mkdir", at);
      parent.set(last, new Directory(parent.fs, permissions));
      first ??= at;
    }
    return first;
  }

  rmdir(path: string): void {
    const { node, parent, name } = this.#machine.tree.walk(path, "rmdir", false);
    if (node === undefined) throw new SystemError(Errno.ENOENT, "rmdir", path);
    if (!(node instanceof Directory)) throw new SystemError(Errno.ENOTDIR, "rmdir", path);
    if (node.names().length > 0) throw new SystemError(Errno.ENOTEMPTY, "rmdir", path);
    parent.remove(name);
  }

  unlink(path: string): void {
    const { node, parent, name } = this.#machine.tree.walk(path, "unlink", false);
    if (node === undefined) throw new SystemError(Errno.ENOENT, "unlink", path);
    if (node instanceof Directory) throw new SystemError(Errno.EISDIR, "unlink", path);
    parent.remove(name);
    node.links--;
  }

  rm(path: string, force: boolean, recursive: boolean): void {
    const { node, parent, name } = this.#machine.tree.walk(path, "rm", false);
    if (node === undefined) {
      if (force) return;
      throw new SystemError(Errno.ENOENT, "rm", path);
    }
    if (node instanceof Directory && !recursive) throw new SystemError(Errno.EISDIR, "rm", path);
    parent.remove(name);
  }

  rename(from: string, to: string): void {
    const source = this.#machine.tree.walk(from, "rename", false);
    if (source.node === undefined) throw new SystemError(Errno.ENOENT, "rename", from);
    const target = this.#machine.tree.walk(to, "rename", false);
    // One step: a power cut leaves both names as before, or both as after.
    const { node } = source;
    const before = target.node;
    const { fs } = source.parent;
    target.parent.rename(source.parent, source.name, target.name, node, before);
    if (before !== undefined && before !== node) before.links--;
    this.#machine.trace(`rename ${from} ${to} on ${fs.device}`);
  }

  symlink(target: string, path: string): void {
    const { node, parent, name } = this.#machine.tree.walk(path, "symlink", false);
    if (node !== undefined) throw new SystemError(Errno.EEXIST, "symlink", path);
    parent.set(name, new Link(parent.fs, target));
  }

  chmod(path: string, permissions: number): void {
    const node = this.#machine.tree.node(path, "chmod");
    node.mode = (node.mode & ~0o7777) | permissions;
  }

  exists(path: string): boolean {
    try {
      return this.#machine.tree.walk(path, "access").node !== undefined;
    } catch (error) {
      if (error instanceof SystemError) return false;
      throw error;
    }
  }

  readFile(path: string): Uint8Array {
    const node = this.#machine.tree.node(path, "open");
    if (node instanceof TextFile) return ENCODER.encode(node.text());
    if (node instanceof RegularFile) return node.content.copy();
    throw new SystemError(node instanceof Directory ? Errno.EISDIR : Errno.EINVAL, "read", path);
  }

  writeFile(path: string, bytes: Uint8Array, how: number | string, permissions: number): void {
    const fd = this.open(path, how, permissions);
    try {
      this.write(fd, bytes, 0);
    } finally {
      this.close(fd);
    }
  }

  #touch(node: Node): void {
    node.modifiedMs = this.#machine.wallMs;
    node.changedMs = this.#machine.wallMs;
  }
}
