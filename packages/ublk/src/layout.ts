/**
 * The structures of ublk's control plane, little-endian, as bytes.
 *
 * ```
 *   ublksrv_ctrl_cmd, 32 bytes              ublksrv_ctrl_dev_info, 64 bytes
 *    0 u32 dev_id                            0 u16 nr_hw_queues   2 u16 queue_depth
 *    4 u16 queue_id (0xffff: none)           4 u16 state          8 u32 max_io_buf_bytes
 *    6 u16 length of the buffer             12 u32 dev_id        16 s32 ublksrv_pid
 *    8 u64 address of the buffer            24 u64 flags         32 u64 ublksrv_flags
 *   16 u64 data                             40 u32 owner_uid     44 u32 owner_gid
 *
 *   ublk_params, 152 bytes (older kernels read a prefix)
 *    0 u32 len            4 u32 types
 *    8 u32 attrs         12 u8 logical_bs_shift  13 u8 physical_bs_shift
 *   14 u8 io_opt_shift   15 u8 io_min_shift      16 u32 max_sectors  20 u32 chunk_sectors
 *   24 u64 dev_sectors   32 u64 virt_boundary_mask
 *   40 u32 discard_alignment     44 u32 discard_granularity   48 u32 max_discard_sectors
 *   52 u32 max_write_zeroes_sectors                           56 u16 max_discard_segments
 *  108 u32 dma_alignment, a mask
 * ```
 */
import { EINVAL } from "@blksnap/errors";
import { ParamAttribute, ParamType, QUEUE_DEPTH_MAX } from "./abi.js";
import { UblkError } from "./errors.js";

export const DEV_INFO_BYTES = 64;
const PARAMS_BYTES = 152;

const SECTOR_BYTES = 512;
const PAGE_BYTES = 4096;
const MAX_IO_BYTES_MAX = 32 * 1024 * 1024;

/** "Give me any number": the id in ADD_DEV. */
export const ANY_DEVICE_ID = 0xffff_ffff;

/** The kernel's information about a ublk device. */
export interface UblkDeviceInfo {
  readonly id: number;
  readonly queues: number;
  readonly queueDepth: number;
  /** One of UblkState. */
  readonly state: number;
  readonly maxIoBytes: number;
  readonly serverPid: number;
  readonly ownerUid: number;
  readonly ownerGid: number;
  /** Enabled features of this device: those of UblkFeature, and others that later kernels add by themselves. */
  readonly features: number;
  /** Two 32-bit words of the server's own, kept by the kernel: halves of its `ublksrv_flags`. */
  readonly serverFlags: number;
  readonly serverFlagsHigh: number;
}

/** Geometry and capabilities of a block device, in bytes. All sizes but the capacity are powers of two. */
export interface DeviceParams {
  /** Multiple of logicalBlockBytes. */
  readonly capacityBytes: number;
  /** 512 to the page size. */
  readonly logicalBlockBytes: number;
  readonly physicalBlockBytes: number;
  readonly ioMinBytes: number;
  readonly ioOptBytes: number;
  readonly readOnly: boolean;
  readonly rotational: boolean;
  /** Writes may be lost until a flush; without it the kernel sends no flush. */
  readonly volatileCache: boolean;
  /** Supports writes with FUA, if it has a volatile cache; otherwise the kernel sends a flush after them. */
  readonly fua: boolean;
  /** 0: no discard. */
  readonly discardMaxBytes: number;
  readonly discardGranularityBytes: number;
  /** 0: no write-zeroes. */
  readonly writeZeroesMaxBytes: number;
  /**
   * Of a file that requests are passed on to: it takes their pages as they are, where their bytes begin and end at
   * multiples of this, a power of two up to the page size. Their owners can still write to them; so it keeps no
   * checksums or parities. Undefined where it takes none.
   */
  readonly pageAlignmentBytes?: number | undefined;
}

/** Refuses values that the kernel would refuse or silently change, and names them. */
function check(condition: boolean, what: string): void {
  if (!condition) throw new UblkError("CONTROL_FAILED", what, EINVAL);
}

function isBlockSize(bytes: number): boolean {
  return bytes >= SECTOR_BYTES && Number.isInteger(Math.log2(bytes));
}

/** @throws UblkError CONTROL_FAILED (EINVAL) that names the value */
export function checkParams(params: DeviceParams): void {
  const { capacityBytes, logicalBlockBytes } = params;
  const blockOk = isBlockSize(logicalBlockBytes) && logicalBlockBytes <= PAGE_BYTES;
  check(blockOk, `logical block of ${logicalBlockBytes} bytes: a power of two from 512 to 4096`);
  const capacityOk =
    Number.isSafeInteger(capacityBytes) &&
    capacityBytes > 0 &&
    capacityBytes % logicalBlockBytes === 0;
  check(capacityOk, `capacity of ${capacityBytes} bytes: a positive multiple of the logical block`);
  for (const name of ["physicalBlockBytes", "ioMinBytes", "ioOptBytes"] as const) {
    const sizeOk = isBlockSize(params[name]) && params[name] >= logicalBlockBytes;
    check(sizeOk, `${name} of ${params[name]}: a power of two, at least the logical block`);
  }
  for (const name of ["discardMaxBytes", "writeZeroesMaxBytes"] as const) {
    const bytes = params[name];
    const maxOk = bytes >= 0 && bytes < 2 ** 41 && bytes % logicalBlockBytes === 0;
    check(maxOk, `${name} of ${bytes}: 0, or a multiple of the logical block`);
  }
}

function checkMaxIo(maxIoBytes: number): void {
  const ok = maxIoBytes >= PAGE_BYTES && maxIoBytes <= MAX_IO_BYTES_MAX;
  check(
    ok && maxIoBytes % PAGE_BYTES === 0,
    `largest request of ${maxIoBytes} bytes: a multiple of 4096, at most 32 MiB`,
  );
}

/**
 * @param maxIoBytes the largest read or write, from the device's info
 * @param zeroCopy users' memory has to be aligned as the file wants it; ublk asks for 4 bytes otherwise
 * @throws UblkError CONTROL_FAILED (EINVAL)
 */
export function encodeParams(
  params: DeviceParams,
  maxIoBytes: number,
  zeroCopy = false,
): Uint8Array {
  checkParams(params);
  checkMaxIo(maxIoBytes);
  const bytes = new Uint8Array(PARAMS_BYTES);
  const view = new DataView(bytes.buffer);
  const discards = params.discardMaxBytes > 0 || params.writeZeroesMaxBytes > 0;
  view.setUint32(0, PARAMS_BYTES, true);
  const alignmentBytes = zeroCopy ? params.pageAlignmentBytes : undefined;
  const types =
    ParamType.BASIC |
    (discards ? ParamType.DISCARD : 0) |
    (alignmentBytes === undefined ? 0 : ParamType.DMA_ALIGN);
  view.setUint32(4, types, true);
  view.setUint32(
    8,
    (params.readOnly ? ParamAttribute.READ_ONLY : 0) |
      (params.rotational ? ParamAttribute.ROTATIONAL : 0) |
      (params.volatileCache ? ParamAttribute.VOLATILE_CACHE : 0) |
      (params.fua ? ParamAttribute.FUA : 0),
    true,
  );
  view.setUint8(12, Math.log2(params.logicalBlockBytes));
  view.setUint8(13, Math.log2(params.physicalBlockBytes));
  view.setUint8(14, Math.log2(Math.max(params.ioOptBytes, params.physicalBlockBytes)));
  view.setUint8(15, Math.log2(Math.max(params.ioMinBytes, params.physicalBlockBytes)));
  view.setUint32(16, maxIoBytes / SECTOR_BYTES, true);
  view.setBigUint64(24, BigInt(params.capacityBytes / SECTOR_BYTES), true);
  if (discards) {
    view.setUint32(44, Math.max(params.discardGranularityBytes, params.logicalBlockBytes), true);
    view.setUint32(48, params.discardMaxBytes / SECTOR_BYTES, true);
    view.setUint32(52, params.writeZeroesMaxBytes / SECTOR_BYTES, true);
    view.setUint16(56, params.discardMaxBytes > 0 ? 1 : 0, true);
  }
  if (alignmentBytes !== undefined) view.setUint32(108, alignmentBytes - 1, true);
  return bytes;
}

/** Parameters of ADD_DEV. */
export interface NewDevice {
  /** Negative, or ANY_DEVICE_ID: any free number. */
  readonly id: number;
  /** 1 to 4096; the kernel makes no more than there are CPUs. */
  readonly queues: number;
  /** 1 to 4096 */
  readonly queueDepth: number;
  /** A multiple of 4096, at most 32 MiB. */
  readonly maxIoBytes: number;
  /** Wanted UblkFeature bits. */
  readonly features: number;
  /** Two 32-bit words that the kernel keeps for the server. */
  readonly serverFlags: number;
  readonly serverFlagsHigh: number;
}

/** @throws UblkError CONTROL_FAILED (EINVAL) */
export function encodeDeviceInfo(device: NewDevice): Uint8Array {
  const { id, queues, queueDepth } = device;
  check(Number.isInteger(id) && id <= ANY_DEVICE_ID, `device number ${id}: a whole number`);
  check(Number.isInteger(queues) && queues >= 1 && queues <= QUEUE_DEPTH_MAX, `${queues} queues`);
  const depthOk = Number.isInteger(queueDepth) && queueDepth >= 1 && queueDepth <= QUEUE_DEPTH_MAX;
  check(depthOk, `queue depth ${queueDepth}: 1 to ${QUEUE_DEPTH_MAX}`);
  checkMaxIo(device.maxIoBytes);
  const bytes = new Uint8Array(DEV_INFO_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, device.queues, true);
  view.setUint16(2, device.queueDepth, true);
  view.setUint32(8, device.maxIoBytes, true);
  view.setUint32(12, id < 0 ? ANY_DEVICE_ID : id, true);
  view.setBigUint64(24, BigInt(device.features), true);
  view.setUint32(32, device.serverFlags, true);
  view.setUint32(36, device.serverFlagsHigh, true);
  return bytes;
}

export function decodeDeviceInfo(bytes: Uint8Array): UblkDeviceInfo {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return {
    queues: view.getUint16(0, true),
    queueDepth: view.getUint16(2, true),
    state: view.getUint16(4, true),
    maxIoBytes: view.getUint32(8, true),
    id: view.getUint32(12, true),
    serverPid: view.getInt32(16, true),
    features: Number(view.getBigUint64(24, true)),
    serverFlags: view.getUint32(32, true),
    serverFlagsHigh: view.getUint32(36, true),
    ownerUid: view.getUint32(40, true),
    ownerGid: view.getUint32(44, true),
  };
}
