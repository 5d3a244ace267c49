/**
 * What a file system's superblock, or log, proves about a time in which the device was not watched: that it was not
 * mounted read-write, checked or recreated. Neither token covers writes past the file system, into the middle of its
 * device.
 *
 * - `unmounted`, of a file system that was unmounted in order. ext2/3/4 write the superblock, with mount
 *   count and time, before anything else of a mount; XFS writes the part of its log ahead of the head. So
 *   what changes them changes the digest or this token even where power is cut right after.
 * - `session`, of ext2/3/4, even of one that was mounted when power was cut: identifies the current or last mount. A
 *   mount increments a count; a read-only mount and e2fsck replay the journal, and clear the flag that requires it.
 *
 * btrfs proves nothing: the first commit, up to 30 s after the mount, first writes its superblocks, and files without
 * copy-on-write change before. Nor does a file system that is not alone on its device: the other header may be the
 * true owner, as on an md member that was an ext4 before.
 *
 * Facts: fs/ext4/super.c (ext4_setup_super, ext4_mark_recovery_complete), fs/ext4/ext4.h,
 * fs/xfs/xfs_log_recover.c (xlog_clear_stale_blocks, xlog_check_unmount_rec, xlog_logrec_hblks),
 * fs/xfs/libxfs/xfs_log_format.h (struct xlog_rec_header, struct xlog_op_header),
 * include/uapi/linux/raid/md_p.h, include/linux/swap.h, drivers/md/bcache (super block at 4 KiB).
 */
import { createHash } from "node:crypto";
import { type ReadBytes, uuidAt, viewOf } from "./device-bytes.js";
import { findXfsLogHead, parseXfsSuperblock, type XfsGeometry, XfsLogReader } from "./xfs-log.js";

export interface FileSystemProof {
  readonly unmounted: string | null;
  readonly session: string | null;
}

const NOTHING: FileSystemProof = { unmounted: null, session: null };

const EXT_START = 1024;
const EXT_MAGIC = 0xef53;
const EXT_STATE_VALID = 1;
const EXT_STATE_ERROR = 2;
const EXT_INCOMPAT_RECOVER = 0x4;
const EXT_INCOMPAT_JOURNAL_DEVICE = 0x8;
const EXT_INCOMPAT_64BIT = 0x80;

const SECOND_PAGE = 4096;
const MD_MAGIC = 0xa92b4efc;
const BCACHE_MAGIC = "c68573f64e1a45ca8265f57f48ba6d81";
const SWAP_MAGICS = ["SWAPSPACE2", "SWAP-SPACE"];
const MBR_TABLE = 446;

const RECORD_HEADER_SIZE_BYTES = 32 * 1024;
const UNMOUNT_FLAG = 0x20;
/** A stripe unit of 256 KiB, twice. */
const UNMOUNT_SEARCH_BLOCKS = 1024;

/**
 * @param start the device's first MiB, or the whole of a smaller one
 */
export async function proveFileSystem(
  read: ReadBytes,
  capacityBytes: number,
  start: Uint8Array,
): Promise<FileSystemProof> {
  if (start.length < 2 * SECOND_PAGE || hasOtherOwner(start)) return NOTHING;
  const isExt = viewOf(start).getUint16(EXT_START + 56, true) === EXT_MAGIC;
  const xfs = parseXfsSuperblock(start, capacityBytes);
  if (xfs !== undefined) {
    const unmounted = isExt ? null : await xfsUnmounted(read, xfs, start);
    return { unmounted, session: null };
  }
  return isExt ? extProof(start, capacityBytes) : NOTHING;
}

/** The session of an ext2/3/4; undefined if it is none, or proves nothing. */
export interface ExtSession {
  readonly uuid: string;
  readonly session: string;
}

/** @param start the device's first 8 KiB at least */
export function extSession(start: Uint8Array, capacityBytes: number): ExtSession | undefined {
  if (start.length < 2 * SECOND_PAGE || hasOtherOwner(start)) return undefined;
  const isExt = viewOf(start).getUint16(EXT_START + 56, true) === EXT_MAGIC;
  const { session } = isExt ? extProof(start, capacityBytes) : NOTHING;
  return session === null ? undefined : { uuid: uuidAt(start, EXT_START + 0x68), session };
}

function extProof(start: Uint8Array, capacityBytes: number): FileSystemProof {
  const superblock = start.subarray(EXT_START, EXT_START + 1024);
  const view = viewOf(superblock);
  const incompatible = view.getUint32(0x60, true);
  if ((incompatible & EXT_INCOMPAT_JOURNAL_DEVICE) !== 0) return NOTHING;
  const blockLog2 = 10 + view.getUint32(0x18, true);
  const high = (incompatible & EXT_INCOMPAT_64BIT) === 0 ? 0 : view.getUint32(0x150, true);
  const blocks = view.getUint32(0x4, true) + high * 2 ** 32;
  const fits = blockLog2 <= 16 && blocks > 0 && blocks * 2 ** blockLog2 <= capacityBytes;
  // The boot blocks belong to the file system and are empty, unless another program has put its header there.
  if (!fits || start.subarray(0, EXT_START).some((byte) => byte !== 0)) return NOTHING;

  const state = view.getUint16(0x3a, true);
  const needsRecovery = (incompatible & EXT_INCOMPAT_RECOVER) !== 0;
  const isClean = (state & (EXT_STATE_VALID | EXT_STATE_ERROR)) === EXT_STATE_VALID;
  const isUnmounted = isClean && !needsRecovery;
  const session = {
    uuid: uuidAt(superblock, 0x68),
    made: view.getUint32(0x108, true),
    mounts: view.getUint16(0x34, true),
    mountedAt: [view.getUint32(0x2c, true), view.getUint8(0x275)],
    checkedAt: [view.getUint32(0x40, true), view.getUint8(0x277)],
    needsRecovery,
    isClean,
    // The superblock is written at times while it is in use, but not after it is unmounted.
    writtenAt: isUnmounted ? [view.getUint32(0x30, true), view.getUint8(0x274)] : null,
  };
  const token = `ext4 ${JSON.stringify(session)}`;
  return { unmounted: isUnmounted ? token : null, session: token };
}

async function xfsUnmounted(
  read: ReadBytes,
  { uuid, log }: XfsGeometry,
  start: Uint8Array,
): Promise<string | null> {
  if (log === undefined || start.subarray(MBR_TABLE, 512).some((byte) => byte !== 0)) return null;
  const blocks = new XfsLogReader(read, log);
  const { block: head, cycle, ahead } = await findXfsLogHead(read, log);
  const record = await lastRecord(blocks, head);
  if (record === undefined || record.endBlock !== head || record.operations !== 1) return null;
  const data = await blocks.block(record.dataBlock);
  if (((data[9] ?? 0) & UNMOUNT_FLAG) === 0) return null;
  const hash = createHash("sha256");
  for (const { startBytes, endBytes } of ahead) {
    hash.update(await read(startBytes, endBytes - startBytes));
  }
  return `xfs ${uuid} ${cycle}:${head} ${hash.digest("hex")}`;
}

/** The last record before the head: where its data begins, and the block after it. */
async function lastRecord(blocks: XfsLogReader, head: number) {
  const most = Math.min(UNMOUNT_SEARCH_BLOCKS, blocks.count - 1);
  for (let back = 1; back <= most; back++) {
    const at = blocks.wrap(head - back);
    const block = await blocks.block(at);
    if (!blocks.isRecord(block)) continue;
    const view = viewOf(block);
    const version = view.getUint32(8);
    const sizeBytes = (version & 2) === 0 ? 0 : view.getUint32(320);
    const headerBlocks = Math.max(1, Math.ceil(sizeBytes / RECORD_HEADER_SIZE_BYTES));
    const dataBlocks = Math.ceil(view.getUint32(12) / 512);
    return {
      operations: view.getUint32(40),
      dataBlock: blocks.wrap(at + headerBlocks),
      endBlock: blocks.wrap(at + headerBlocks + dataBlocks),
    };
  }
  return undefined;
}

/** Whether something other than a file system has a header within the first 8 KiB, after the first KiB. */
function hasOtherOwner(start: Uint8Array): boolean {
  const second = Buffer.from(start.buffer, start.byteOffset + SECOND_PAGE, SECOND_PAGE);
  const swap = Buffer.from(start.buffer, start.byteOffset + SECOND_PAGE - 10, 10);
  return (
    second.readUInt32LE(0) === MD_MAGIC ||
    second.subarray(24, 40).toString("hex") === BCACHE_MAGIC ||
    SWAP_MAGICS.includes(swap.toString("latin1"))
  );
}
