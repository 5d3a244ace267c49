import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { assertNoConflict, assertNotInUse } from "@blksnap/diff-storage";
import {
  blockIdentity,
  type DeviceNumber,
  type DeviceOrFile,
  deviceKey,
  type PathTarget,
  type TopologyProbe,
} from "@blksnap/linux-block";
import { FakeTree, failsWith, stackUnknown, withDirectory } from "./support.js";

export const dev = (key: string): DeviceNumber => {
  const [major, minor] = key.split(":").map(Number);
  return { major, minor };
};

/** What the paths of the fake machine lead to: a device, or a file of a file system. */
export class Machine {
  readonly tree: FakeTree;
  readonly #root: string;
  readonly #files = new Map<string, PathTarget>();
  readonly #starts = new Map<string, Buffer>();
  probe: TopologyProbe;

  constructor(root: string) {
    this.tree = new FakeTree(root);
    this.#root = root;
    const { sysfsRoot, mountinfoPath } = this.tree;
    const procRoot = join(root, "proc");
    this.probe = {
      sysfsRoot,
      mountinfoPath,
      procRoot,
      lookUp: (path) => this.#lookUp(path),
      readDevice: async (_, device, startBytes, lengthBytes) =>
        this.#readDevice(device).subarray(startBytes, startBytes + lengthBytes),
      exportTables: [join(procRoot, "exports")],
    };
    this.tree.mount("8:1", "/", "ext4", "/dev/sda1");
    this.disk("8:0", "sda").tree.device("8:1", "block/sda/sda1", { partition: "1" });
  }

  disk(key: string, name: string, files: Readonly<Record<string, string>> = {}): this {
    this.tree.device(key, `block/${name}`, files);
    this.tree.file(`class/block/${name}/dev`, key);
    return this.node(`/dev/${name}`, key);
  }

  loop(minor: number, file: string, files: Readonly<Record<string, string>> = {}): this {
    return this.disk(`7:${minor}`, `loop${minor}`, { "loop/backing_file": file, ...files });
  }

  node(path: string, key: string): this {
    const identity = blockIdentity(key);
    this.#files.set(path, { realPath: path, device: dev("0:6"), blockDevice: dev(key), identity });
    return this;
  }

  /** A file under one of its names; the same inode is the same file. */
  file(path: string, inode: number, fileSystem = "8:1"): this {
    const identity = `file:${fileSystem}:${inode}`;
    const device = dev(fileSystem);
    this.#files.set(path, { realPath: path, device, blockDevice: undefined, identity });
    return this;
  }

  proc(path: string, text: string): this {
    const full = join(this.#root, "proc", path);
    mkdirSync(dirname(full), { recursive: true });
    writeFileSync(full, `${text}\n`);
    return this;
  }

  /** A process that has files open for writing. */
  process(pid: number, ...paths: readonly string[]): this {
    for (const [fd, path] of paths.entries()) {
      this.proc(`${pid}/fdinfo/${fd}`, "pos:\t0\nflags:\t02100002");
      mkdirSync(join(this.#root, `proc/${pid}/fd`), { recursive: true });
      symlinkSync(path, join(this.#root, `proc/${pid}/fd/${fd}`));
    }
    return this;
  }

  /** What is at the beginning of a device, from some byte on. */
  starts(key: string, atBytes: number, bytes: Buffer): this {
    this.#starts.set(key, Buffer.concat([Buffer.alloc(atBytes), bytes]));
    return this;
  }

  /** A network namespace with its addresses, as one of its processes sees it. */
  addresses(pid: string, namespace: number, fibTrie: string, inet6 = ""): this {
    this.proc(`${pid}/net/fib_trie`, fibTrie).proc(`${pid}/net/if_inet6`, inet6);
    mkdirSync(join(this.#root, `proc/${pid}/ns`), { recursive: true });
    symlinkSync(`net:[${namespace}]`, join(this.#root, `proc/${pid}/ns/net`));
    return this;
  }

  deviceOrFile(path: string): DeviceOrFile {
    const { blockDevice, identity, device } = this.#files.get(path) as PathTarget;
    return blockDevice ?? { identity, device, path };
  }

  #readDevice(device: DeviceNumber): Buffer {
    const start = this.#starts.get(deviceKey(device));
    if (start === undefined) throw new Error("EIO: i/o error, read");
    return start;
  }

  async #lookUp(path: string): Promise<PathTarget> {
    const found = this.#files.get(path);
    if (found === undefined) throw Object.assign(new Error(`ENOENT: ${path}`), { code: "ENOENT" });
    return found;
  }

  async refused(store: string, device: string): Promise<string> {
    const run = () => assertNoConflict(store, [this.deviceOrFile(device)], this.probe);
    return (await failsWith("STORE_ON_MEMBER", run)).message;
  }

  async accepted(store: string, device: string): Promise<void> {
    await assertNoConflict(store, [this.deviceOrFile(device)], this.probe);
    await assertNotInUse(store, this.probe);
  }

  async unknown(store: string, device: string): Promise<string> {
    const run = () => assertNoConflict(store, [this.deviceOrFile(device)], this.probe);
    return (await stackUnknown(run)).message;
  }

  async inUse(store: string): Promise<string> {
    return (await failsWith("STORE_BUSY", () => assertNotInUse(store, this.probe))).message;
  }
}

/** A test on a machine of its own. */
export const on = (body: (machine: Machine) => Promise<void>) => () =>
  withDirectory((root) => body(new Machine(root)));
