/** Replaces `node:fs` and `node:fs/promises` by those of the simulated machine. */
import { createRequire, syncBuiltinESMExports } from "node:module";
import type { SimMachine } from "./machine.js";
import { callOn } from "./name-calls.js";
import { FD_FIRST } from "./process.js";
import { SimHandle } from "./sim-handle.js";
import { bigStatusOf, fsStatusOf, statusOf } from "./status.js";

type Call = (...words: never[]) => unknown;
type AnyCall = (...words: unknown[]) => unknown;
type Active = () => SimMachine | undefined;

const ROOTS = /^\/(dev|sys|proc|run|var|mnt|etc)(\/|$)/;

function isSimulated(what: unknown): boolean {
  return typeof what === "number" ? what >= FD_FIRST : ROOTS.test(String(what));
}

interface StatOptions {
  readonly bigint?: boolean;
  readonly throwIfNoEntry?: boolean;
}

function bytesOf(data: unknown): Uint8Array {
  return typeof data === "string" ? Buffer.from(data) : (data as Uint8Array);
}

function textOr(bytes: Uint8Array, options: unknown): string | Buffer {
  const encoding =
    typeof options === "string"
      ? options
      : (options as { encoding?: string } | undefined)?.encoding;
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return encoding == null ? buffer : buffer.toString(encoding as BufferEncoding);
}

/** The calls that begin with a path or a descriptor, as functions of the machine. */
function callsOf(machine: SimMachine): Record<string, Call> {
  const { files, tree } = machine;
  const stat = (path: string, options?: StatOptions, follow = true): unknown => {
    const node = tree.node(path, follow ? "stat" : "lstat", follow);
    return options?.bigint ? bigStatusOf(node) : statusOf(node);
  };
  return {
    openSync: (path: string, flags?: number | string, mode?: number) =>
      files.open(path, flags, mode),
    closeSync: (fd: number) => files.close(fd),
    readSync: (fd: number, into: Uint8Array, offset = 0, length?: number, at?: number | null) =>
      files.read(fd, part(into, offset, length), at ?? null),
    writeSync: (fd: number, from: unknown, offset?: number, length?: number, at?: number | null) =>
      typeof from === "string"
        ? files.write(fd, bytesOf(from), offset ?? null)
        : files.write(fd, part(bytesOf(from), offset ?? 0, length), at ?? null),
    fstatSync: (fd: number, options?: StatOptions) => {
      const { node } = machine.process.file(fd, "fstat");
      return options?.bigint ? bigStatusOf(node) : statusOf(node);
    },
    statSync: (path: string, options?: StatOptions) => stat(path, options),
    lstatSync: (path: string, options?: StatOptions) => stat(path, options, false),
    ftruncateSync: (fd: number, length = 0) => files.truncate(fd, length),
    readdirSync: (path: string) => files.readdir(path),
    readlinkSync: (path: string) => files.readlink(path),
    realpathSync: (path: string) => files.realpath(path),
    mkdirSync: (path: string, options?: { recursive?: boolean; mode?: number }) =>
      files.mkdir(path, options?.recursive ?? false, options?.mode),
    rmdirSync: (path: string) => files.rmdir(path),
    rmSync: (path: string, options?: { force?: boolean; recursive?: boolean }) =>
      files.rm(path, options?.force ?? false, options?.recursive ?? false),
    unlinkSync: (path: string) => files.unlink(path),
    renameSync: (from: string, to: string) => files.rename(from, to),
    symlinkSync: (target: string, path: string) => files.symlink(target, path),
    chmodSync: (path: string, mode: number) => files.chmod(path, mode),
    existsSync: (path: string) => files.exists(path),
    readFileSync: (path: string, options?: unknown) => textOr(files.readFile(path), options),
    writeFileSync: (
      path: string,
      data: unknown,
      options?: { mode?: number; flag?: string } | string,
    ) => {
      const { mode = 0o666, flag = "w" } = typeof options === "object" ? options : {};
      files.writeFile(path, bytesOf(data), flag, mode);
    },
    statfsSync: (path: string) => fsStatusOf(tree.node(path, "statfs")),
    accessSync: (path: string) => {
      tree.node(path, "access");
    },
  };
}

function part(bytes: Uint8Array, offset: number, length?: number): Uint8Array {
  return bytes.subarray(offset, length == null ? undefined : offset + length);
}

/** Calls of `node:fs/promises` that equal those of `node:fs`, done a moment later. */
const PROMISED = [
  "stat",
  "lstat",
  "readdir",
  "readlink",
  "realpath",
  "mkdir",
  "rmdir",
  "rm",
  "unlink",
  "rename",
  "symlink",
  "chmod",
  "readFile",
  "writeFile",
  "statfs",
  "access",
] as const;
/** Calls of `node:fs` with a callback for which the same holds, and those on descriptors. */
const CALLED_BACK = [...PROMISED, "open", "close", "fstat", "ftruncate"] as const;

export function installFiles(active: Active): void {
  const require = createRequire(import.meta.url);
  const fs = require("node:fs") as Record<string, AnyCall>;
  const promises = require("node:fs/promises") as Record<string, AnyCall>;
  let calls: Record<string, AnyCall> = {};
  let callsFor: SimMachine | undefined;
  let callsTree: unknown;

  const callsNow = (machine: SimMachine): Record<string, AnyCall> => {
    if (callsFor !== machine || callsTree !== machine.tree) {
      calls = callsOf(machine) as Record<string, AnyCall>;
      callsFor = machine;
      callsTree = machine.tree;
    }
    return calls;
  };
  /** The machine that a call belongs to; undefined: the call is for the platform. */
  const machineFor = (what: unknown): SimMachine | undefined => {
    const machine = active();
    if (machine === undefined || !isSimulated(what)) return undefined;
    // Throws if the calling life has ended.
    void machine.process;
    return machine;
  };

  for (const name of Object.keys(callsOf(NO_MACHINE))) {
    const real = fs[name];
    fs[name] = (...words: unknown[]): unknown => {
      const machine = machineFor(name === "symlinkSync" ? words[1] : words[0]);
      return machine === undefined ? real(...words) : callsNow(machine)[name](...words);
    };
  }
  for (const name of PROMISED) {
    const real = promises[name];
    promises[name] = async (...words: unknown[]): Promise<unknown> => {
      const machine = machineFor(name === "symlink" ? words[1] : words[0]);
      if (machine === undefined) return real(...words);
      const path = String(name === "symlink" ? words[1] : words[0]);
      return callOn(machine, path, name, () => callsNow(machine)[`${name}Sync`](...words));
    };
  }
  const realOpen = promises["open"];
  promises["open"] = async (...words: unknown[]): Promise<unknown> => {
    const machine = machineFor(words[0]);
    if (machine === undefined) return realOpen(...words);
    const open = () => new SimHandle(machine, callsNow(machine)["openSync"](...words) as number);
    return callOn(machine, String(words[0]), "open", open);
  };
  for (const name of CALLED_BACK) {
    install(fs, name, (machine, words) =>
      callOn(machine, String(words[0]), name, () => callsNow(machine)[`${name}Sync`](...words)),
    );
  }
  install(fs, "read", transferOf("read"));
  install(fs, "write", transferOf("write"));
  for (const name of ["fsync", "fdatasync"]) {
    install(fs, name, (machine, [fd]) =>
      machine.files.transfer(fd as number, "sync", undefined, 0, name),
    );
  }
  syncBuiltinESMExports();

  function install(
    table: Record<string, AnyCall>,
    name: string,
    call: (machine: SimMachine, words: readonly unknown[]) => Promise<unknown>,
  ): void {
    const real = table[name];
    const replaced = (...words: unknown[]): unknown => {
      const machine = machineFor(words[0]);
      if (machine === undefined) return real(...words);
      const callback = words.pop() as (error: unknown, ...values: unknown[]) => void;
      // read() and write() also return the buffer.
      call(machine, words).then((value) => callback(null, value, words[1]), callback);
      return undefined;
    };
    // By these, promisify() knows the names of several values.
    for (const symbol of Object.getOwnPropertySymbols(real)) {
      const descriptor = Object.getOwnPropertyDescriptor(real, symbol) as PropertyDescriptor;
      Object.defineProperty(replaced, symbol, descriptor);
    }
    table[name] = replaced;
  }
}

function transferOf(kind: "read" | "write") {
  return (machine: SimMachine, words: readonly unknown[]): Promise<unknown> => {
    const [fd, data, offset = 0, length, at] = words as [
      number,
      Uint8Array,
      number | undefined,
      number | undefined,
      number | null | undefined,
    ];
    return machine.files.transfer(fd, kind, part(data, offset, length), at ?? null, kind);
  };
}

/** Only for the names of the calls. */
const NO_MACHINE = { files: undefined, tree: undefined } as unknown as SimMachine;
