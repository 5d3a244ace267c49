/**
 * A digest of the few places on a device that change whenever it is mounted read-write or formatted, or its
 * partitions move. It cannot see a write into the middle of a device by something other than a file system; the
 * kernel's counters (write-counters.ts) see that.
 *
 * | where          | what changes there                                                           |
 * | -------------- | ---------------------------------------------------------------------------- |
 * | first 1 MiB    | partition table, LVM and LUKS headers, md 1.1 and 1.2, ext2/3/4 (mount time  |
 * |                | and count at 1 KiB), XFS superblock, btrfs superblock at 64 KiB (generation) |
 * | last 1 MiB     | backup GPT, md 0.9 and 1.0                                                   |
 * | btrfs: 64 MiB  | second superblock                                                            |
 * | XFS            | its log: each mount that changes something moves the head (xfs-log.ts)       |
 *
 * Facts: fs/ext4/ext4.h (struct ext4_super_block), fs/btrfs/fs.h and
 * include/uapi/linux/btrfs_tree.h (struct btrfs_super_block, struct btrfs_dev_item),
 * fs/xfs/libxfs/xfs_format.h (struct xfs_dsb).
 *
 * All reads begin at multiples of 4 KiB, and end there or at the end of the device or XFS's log, so that they work on
 * a device that is open with O_DIRECT. Use that if others may hold the device open, too: file systems write around
 * the page cache of the block device, whose pages live until the last of them closes it.
 */
import { createHash, type Hash } from "node:crypto";
import { type ReadBytes, uuidAt, viewOf } from "./device-bytes.js";
import { type FileSystemProof, proveFileSystem } from "./file-system-proof.js";
import { findXfsLogHead, parseXfsSuperblock, type XfsGeometry } from "./xfs-log.js";

export interface ContentDigest {
  /** "ext4" stands for ext2 and ext3 too. */
  readonly fileSystem: "ext4" | "xfs" | "btrfs" | null;
  /** Of the file system; for btrfs that of this device, because all its devices share the other. */
  readonly uuid: string | null;
  /** SHA-256, hexadecimal. */
  readonly digest: string;
  /** Absent in records of earlier versions. */
  readonly proof?: FileSystemProof;
}

const MIB = 1024 * 1024;
const EDGE_BYTES = MIB;
const READ_BYTES = MIB;
/** What is digested with its offset: recorded digests depend on it. */
const PIECE_BYTES = 64 * 1024;

const EXT_SUPERBLOCK_BYTES = 1024;
const EXT_MAGIC = 0xef53;
const BTRFS_MAGIC = "_BHRfS_M";
const BTRFS_SUPERBLOCK_LENGTH_BYTES = 4096;
const BTRFS_SUPERBLOCKS_BYTES = [64 * 1024, 64 * MIB] as const;

/**
 * Every read stays within the capacity, and the content of the device only selects from a bounded number of reads.
 * @throws errors of `read`
 */
export async function digestContents(
  read: ReadBytes,
  capacityBytes: number,
): Promise<ContentDigest> {
  const start = await read(0, Math.min(EDGE_BYTES, capacityBytes));
  const digest = await digestOf(read, capacityBytes, start);
  if (digest.fileSystem === "btrfs" || digest.fileSystem === null) return digest;
  return { ...digest, proof: await proveFileSystem(read, capacityBytes, start) };
}

async function digestOf(
  read: ReadBytes,
  capacityBytes: number,
  start: Uint8Array,
): Promise<ContentDigest> {
  const hash = createHash("sha256");
  mix(hash, "start", 0, start);
  const tailBytes = Math.max(start.length, alignDown(capacityBytes - EDGE_BYTES));
  await mixRange(hash, "end", read, tailBytes, capacityBytes);

  const btrfsUuid = btrfsDeviceUuid(start);
  if (btrfsUuid !== null) {
    const [, second] = BTRFS_SUPERBLOCKS_BYTES;
    const endBytes = Math.min(second + BTRFS_SUPERBLOCK_LENGTH_BYTES, capacityBytes);
    await mixRange(hash, "btrfs", read, second, endBytes);
    return { fileSystem: "btrfs", uuid: btrfsUuid, digest: hash.digest("hex") };
  }
  const xfs = parseXfsSuperblock(start, capacityBytes);
  if (xfs !== undefined) {
    await mixXfsLog(hash, read, xfs);
    return { fileSystem: "xfs", uuid: xfs.uuid, digest: hash.digest("hex") };
  }
  const extUuid = extFileSystemUuid(start);
  const fileSystem = extUuid === null ? null : "ext4";
  return { fileSystem, uuid: extUuid, digest: hash.digest("hex") };
}

async function mixXfsLog(hash: Hash, read: ReadBytes, { log }: XfsGeometry): Promise<void> {
  if (log === undefined) return;
  const head = await findXfsLogHead(read, log);
  hash.update(`xfs log head ${head.block} of cycle ${head.cycle}\n`);
  for (const { startBytes, endBytes } of head.before) {
    await mixRange(hash, "xfs log", read, startBytes, endBytes);
  }
}

async function mixRange(
  hash: Hash,
  label: string,
  read: ReadBytes,
  startBytes: number,
  endBytes: number,
): Promise<void> {
  for (let at = startBytes; at < endBytes; at += READ_BYTES) {
    const bytes = await read(at, Math.min(READ_BYTES, endBytes - at));
    for (let from = 0; from < bytes.length; from += PIECE_BYTES) {
      mix(hash, label, at + from, bytes.subarray(from, from + PIECE_BYTES));
    }
  }
}

/** Includes the offset, so that the same bytes elsewhere have another digest. */
function mix(hash: Hash, label: string, offsetBytes: number, bytes: Uint8Array): void {
  hash.update(`${label} ${offsetBytes}+${bytes.length}\n`).update(bytes);
}

function extFileSystemUuid(start: Uint8Array): string | null {
  if (start.length < EXT_SUPERBLOCK_BYTES + 1024) return null;
  const view = viewOf(start);
  if (view.getUint16(EXT_SUPERBLOCK_BYTES + 56, true) !== EXT_MAGIC) return null;
  return uuidAt(start, EXT_SUPERBLOCK_BYTES + 104);
}

function btrfsDeviceUuid(start: Uint8Array): string | null {
  const [at] = BTRFS_SUPERBLOCKS_BYTES;
  if (start.length < at + BTRFS_SUPERBLOCK_LENGTH_BYTES) return null;
  const magic = String.fromCharCode(...start.subarray(at + 64, at + 72));
  if (magic !== BTRFS_MAGIC || viewOf(start).getBigUint64(at + 48, true) !== BigInt(at))
    return null;
  return uuidAt(start, at + 267);
}

function alignDown(bytes: number): number {
  return Math.floor(bytes / 4096) * 4096;
}
