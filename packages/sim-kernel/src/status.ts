/** The results of stat(2) and statfs(2), in the form of `node:fs`. */
import { type BigIntStats, Stats, type StatsFs, statSync } from "node:fs";
import type { Node } from "./nodes.js";

const BLOCK_BYTES = 4096;
/** Node does not export the class. */
const BIG_PROTOTYPE: object = Object.getPrototypeOf(statSync(".", { bigint: true }));
const NS_PER_MS = 1_000_000n;

function numbersOf(node: Node): Record<string, number> {
  const { fs, inode, mode, rdev, links, sizeBytes, modifiedMs, changedMs } = node;
  const uid = process.geteuid?.() ?? 0;
  return {
    dev: fs.device,
    ino: inode,
    mode,
    nlink: links,
    uid,
    gid: 0,
    rdev,
    size: sizeBytes,
    blksize: BLOCK_BYTES,
    blocks: Math.ceil(sizeBytes / 512),
    atimeMs: modifiedMs,
    mtimeMs: modifiedMs,
    ctimeMs: changedMs,
    birthtimeMs: changedMs,
  };
}

export function statusOf(node: Node): Stats {
  return Object.assign(Object.create(Stats.prototype) as Stats, numbersOf(node));
}

export function bigStatusOf(node: Node): BigIntStats {
  const status = Object.create(BIG_PROTOTYPE) as Record<string, bigint>;
  for (const [name, value] of Object.entries(numbersOf(node))) {
    status[name] = BigInt(Math.floor(value));
  }
  status["mtimeNs"] = BigInt(Math.floor(node.modifiedMs * 1000)) * (NS_PER_MS / 1000n);
  status["ctimeNs"] = BigInt(Math.floor(node.changedMs * 1000)) * (NS_PER_MS / 1000n);
  return status as unknown as BigIntStats;
}

export function fsStatusOf({ fs }: Node): StatsFs {
  const blocks = fs.capacityBytes / BLOCK_BYTES;
  return {
    type: fs.type,
    bsize: BLOCK_BYTES,
    blocks,
    bfree: blocks,
    bavail: blocks,
    files: 0,
    ffree: 0,
  } as StatsFs;
}
