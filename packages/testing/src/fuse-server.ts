/**
 * A FUSE file system of some regular files in memory, for tests of file systems that do not answer: it withholds the
 * answers that HungFileSystem names. A process of its own, because what is tested may block.
 *
 * Words: mount point, number of files, bytes of each.
 */
import { spawnSync } from "node:child_process";
import { existsSync, openSync, read, rmSync, writeSync } from "node:fs";

/** Sent to this process: withhold answers to these requests, of one process; without any, answer everything. */
export type ToFuseServer = { readonly withhold: readonly FuseRequest[]; readonly pid?: number };
/** Sent by it: mounted; an answer is withheld. */
export type FromFuseServer =
  | { readonly type: "mounted" }
  | { readonly type: "withheld"; readonly request: FuseRequest };
export type FuseRequest = keyof typeof OPCODES;

/** Of `include/uapi/linux/fuse.h`. */
const OPCODES = {
  lookup: 1,
  getattr: 3,
  open: 14,
  read: 15,
  write: 16,
  statfs: 17,
  release: 18,
  fsync: 20,
  flush: 25,
  init: 26,
  opendir: 27,
  releasedir: 29,
  setlk: 32,
} as const;
const NAMES = new Map<number, FuseRequest>(
  Object.entries(OPCODES).map(([name, code]) => [code, name as FuseRequest]),
);
const FORGET = 2;
const INTERRUPT = 36;
const BATCH_FORGET = 42;
const POSIX_LOCKS = 2;
const ENOENT = 2;
const ENOSYS = 38;

const REQUEST_HEADER_BYTES = 40;
const ANSWER_HEADER_BYTES = 16;
const WRITE_HEADER_BYTES = 40;
const MESSAGE_MAX_BYTES = 2 ** 20 + 4096;
/** Names and attributes stay in the kernel's memory: only what a test withholds has to be answered. */
const VALID_S = 3600n;
const ROOT = 1n;
const FIRST_FILE = 2n;

const FUSE_NODE = "/dev/fuse";
/** Major and minor: a miscellaneous device of the kernel. */
const FUSE_NUMBER = ["10", "229"];

const [mountPoint = "", count = "1", bytes = "0"] = process.argv.slice(2);
const files = Array.from({ length: Number(count) }, () => Buffer.alloc(Number(bytes)));

function attributes(into: Buffer, offset: number, node: bigint): void {
  const size = node === ROOT ? 0 : Number(bytes);
  into.writeBigUInt64LE(node, offset);
  into.writeBigUInt64LE(BigInt(size), offset + 8);
  into.writeBigUInt64LE(BigInt(size / 512), offset + 16);
  into.writeUInt32LE(node === ROOT ? 0o040755 : 0o100600, offset + 60);
  into.writeUInt32LE(1, offset + 64);
  into.writeUInt32LE(4096, offset + 80);
}

function lookup(body: Buffer): Buffer | number {
  const name = body.toString("latin1", 0, body.length - 1);
  const index = /^file(\d+)$/.exec(name)?.[1];
  if (index === undefined || files[Number(index)] === undefined) return ENOENT;
  const answer = Buffer.alloc(128);
  const node = FIRST_FILE + BigInt(index);
  answer.writeBigUInt64LE(node, 0);
  answer.writeBigUInt64LE(VALID_S, 16);
  answer.writeBigUInt64LE(VALID_S, 24);
  attributes(answer, 40, node);
  return answer;
}

function init(body: Buffer): Buffer {
  const answer = Buffer.alloc(64);
  answer.writeUInt32LE(7, 0);
  answer.writeUInt32LE(Math.min(31, body.readUInt32LE(4)), 4);
  answer.writeUInt32LE(POSIX_LOCKS, 12);
  answer.writeUInt16LE(64, 16);
  answer.writeUInt32LE(2 ** 20, 20);
  return answer;
}

/** The answer's body, or an errno. */
function answerTo(request: FuseRequest | undefined, node: bigint, body: Buffer): Buffer | number {
  const file = files[Number(node - FIRST_FILE)] ?? Buffer.alloc(0);
  const at = Number(body.length >= 16 ? body.readBigUInt64LE(8) : 0n);
  switch (request) {
    case "init":
      return init(body);
    case "lookup":
      return lookup(body);
    case "getattr": {
      const answer = Buffer.alloc(104);
      answer.writeBigUInt64LE(VALID_S, 0);
      attributes(answer, 16, node);
      return answer;
    }
    case "open":
    case "opendir":
      return Buffer.alloc(16);
    case "read":
      return file.subarray(at, at + body.readUInt32LE(16));
    case "write": {
      const answer = Buffer.alloc(8);
      answer.writeUInt32LE(body.copy(file, at, WRITE_HEADER_BYTES), 0);
      return answer;
    }
    case "statfs":
      return Buffer.alloc(80);
    case undefined:
      return ENOSYS;
    default:
      return Buffer.alloc(0);
  }
}

/** A machine may lack the node though its kernel has the driver. */
function openFuse(): number {
  if (existsSync(FUSE_NODE)) return openSync(FUSE_NODE, "r+");
  const node = `${mountPoint}.fuse`;
  spawnSync("mknod", [node, "c", ...FUSE_NUMBER], { stdio: ["ignore", "ignore", "inherit"] });
  try {
    return openSync(node, "r+");
  } finally {
    rmSync(node, { force: true });
  }
}

const fd = openFuse();
const withheld: (() => void)[] = [];
let isWithheld: ReadonlySet<FuseRequest> = new Set();
let processId: number | undefined;

function send(unique: bigint, answer: Buffer | number): void {
  const body = typeof answer === "number" ? Buffer.alloc(0) : answer;
  const header = Buffer.alloc(ANSWER_HEADER_BYTES);
  header.writeUInt32LE(ANSWER_HEADER_BYTES + body.length, 0);
  header.writeInt32LE(typeof answer === "number" ? -answer : 0, 4);
  header.writeBigUInt64LE(unique, 8);
  try {
    writeSync(fd, Buffer.concat([header, body]));
  } catch {
    // The caller has been killed.
  }
}

function isMeant(threadId: number): boolean {
  return processId === undefined || existsSync(`/proc/${processId}/task/${threadId}`);
}

function serve(message: Buffer): void {
  const opcode = message.readUInt32LE(4);
  if ([FORGET, INTERRUPT, BATCH_FORGET].includes(opcode)) return;
  const unique = message.readBigUInt64LE(8);
  const node = message.readBigUInt64LE(16);
  const request = NAMES.get(opcode);
  const answer = answerTo(request, node, message.subarray(REQUEST_HEADER_BYTES));
  if (request === undefined || !isWithheld.has(request) || !isMeant(message.readUInt32LE(32))) {
    send(unique, answer);
    return;
  }
  withheld.push(() => send(unique, answer));
  process.send?.({ type: "withheld", request } satisfies FromFuseServer);
}

function next(): void {
  const into = Buffer.allocUnsafe(MESSAGE_MAX_BYTES);
  read(fd, into, 0, into.length, null, (error, length) => {
    // It has been unmounted.
    if (error !== null) process.exit(0);
    serve(into.subarray(0, length));
    next();
  });
}

process.on("message", ({ withhold, pid }: ToFuseServer) => {
  processId = pid;
  isWithheld = new Set(withhold);
  if (withhold.length === 0) for (const answer of withheld.splice(0)) answer();
});
process.on("disconnect", () => process.exit(0));
// A type whose files are known to be on no device of this host.
const options = "fd=3,rootmode=40000,user_id=0,group_id=0";
const words = ["-i", "-t", "fuse.sshfs", "-o", options, "hung", mountPoint];
const mounted = spawnSync("mount", words, { stdio: ["ignore", "ignore", "inherit", fd] });
if (mounted.status !== 0) process.exit(1);
next();
process.send?.({ type: "mounted" } satisfies FromFuseServer);
