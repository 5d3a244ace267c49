import { BlockDevice } from "./block-device.js";
import { Io, type IoOwner } from "./medium.js";
import type { FileSystem } from "./nodes.js";
import type { OpenFile } from "./process.js";
import type { UblkDevice } from "./ublk-device.js";

const BLOCK_MAJOR = 259;
const SECTOR_BYTES = 512;

/** /dev/ublkbN */
export class UblkBlock extends BlockDevice {
  readonly device: UblkDevice;
  readonly counters: { read: number; write: number; discard: number } = {
    read: 0,
    write: 0,
    discard: 0,
  };

  constructor(fs: FileSystem, device: UblkDevice) {
    const params = device.params as DataView;
    const attributes = params.getUint32(8, true);
    const hasDiscard = (params.getUint32(4, true) & 2) !== 0;
    const sectors = (offset: number): number =>
      hasDiscard ? params.getUint32(offset, true) * SECTOR_BYTES : 0;
    const numbers = [BLOCK_MAJOR, device.info.id] as const;
    const capacityBytes = Number(params.getBigUint64(24, true)) * SECTOR_BYTES;
    super(fs, `ublkb${device.info.id}`, numbers, capacityBytes, {
      logicalBlockBytes: 2 ** params.getUint8(12),
      physicalBlockBytes: 2 ** params.getUint8(13),
      isReadOnly: (attributes & 1) !== 0,
      isRotational: (attributes & 2) !== 0,
      hasVolatileCache: (attributes & 4) !== 0,
      hasFua: (attributes & 8) !== 0,
      discardMaxBytes: sectors(48),
      discardGranularityBytes: hasDiscard ? params.getUint32(44, true) : 0,
      writeZeroesMaxBytes: sectors(52),
    });
    this.device = device;
  }

  override close(open: OpenFile): void {
    super.close(open);
    this.device.onUserClosed();
  }

  override start(io: Io, open: OpenFile, _owner: IoOwner | undefined): number {
    const status = this.check(io, open);
    if (status < 0) return status;
    const key = io.kind === "read" || io.kind === "discard" ? io.kind : "write";
    this.counters[key] += io.lengthBytes / SECTOR_BYTES;
    return this.device.submit(this.#isWritten(io) ? zeroesOf(io) : io);
  }

  #isWritten({ kind }: Io): boolean {
    const isZeroing = kind === "zero" || kind === "punch";
    return isZeroing && this.limits.writeZeroesMaxBytes === 0;
  }
}

/** The kernel writes zeroes if a device does not offer zeroing. */
function zeroesOf({ offsetBytes, lengthBytes, isDurable, done }: Io): Io {
  return new Io("write", offsetBytes, lengthBytes, new Uint8Array(lengthBytes), isDurable, done);
}
