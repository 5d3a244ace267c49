/**
 * A disk by dm-log-writes, the kernel's own recorder of what reaches a disk in which order: replayed up
 * to any entry, it gives the disk as a power cut there would leave it, at the latest.
 *
 * The log device, in the kernel's drivers/md/dm-log-writes.c; all numbers are little-endian, 64 bits:
 *
 * ```
 *   sector 0    magic "jsfgwshr" | version 1 | entries | sector size (32 bits)
 *   sector 1…   entry: first sector | sectors | flags | bytes of mark     then its data, and so on
 *                                                                          (none for a discard)
 * ```
 */
import { closeSync, openSync, readSync, writeSync } from "node:fs";
import { run } from "./command.mjs";

const SECTOR_BYTES = 512;
const MAGIC = 0x6a736677736872n;
const FLAG = { flush: 1, fua: 2, discard: 4, mark: 8 };

function readAt(fd, offset, lengthBytes) {
  const buffer = Buffer.alloc(lengthBytes);
  const bytes = readSync(fd, buffer, 0, lengthBytes, offset);
  if (bytes !== lengthBytes) throw new Error(`the log ends at ${offset}`);
  return buffer;
}

/** The log of a disk, while it is written and afterwards. */
export class WriteLog {
  /** Node of the disk whose writes are logged. */
  path;
  #name;
  #logDevice;
  #hasEnded = false;

  static async create(t, name, { below, logDevice, sectors }) {
    await run(["modprobe", "dm-log-writes"]);
    const table = `0 ${sectors} log-writes ${below} ${logDevice}`;
    await run(["dmsetup", "create", name, "--table", table]);
    const log = new WriteLog();
    log.path = `/dev/mapper/${name}`;
    log.#name = name;
    log.#logDevice = logDevice;
    t.defer(() => log.end());
    return log;
  }

  /** Writes a name into the log: after what is done, before what comes. */
  async mark(text) {
    await run(["dmsetup", "message", this.#name, "0", "mark", text]);
  }

  /** Ends the recording: the log is complete. */
  async end() {
    if (this.#hasEnded) return;
    await run(["dmsetup", "remove", "--retry", this.#name]);
    this.#hasEnded = true;
  }

  /** @returns {{sector: number, sectors: number, isFlush: boolean, isDiscard: boolean, mark?: string, dataOffset: number}[]} */
  entries() {
    const fd = openSync(this.#logDevice, "r");
    try {
      return readEntries(fd);
    } finally {
      closeSync(fd);
    }
  }

  /** Does to the target what entries `from` to `to`, exclusive, did to the disk. */
  replay(entries, from, to, target) {
    const [log, disk] = [openSync(this.#logDevice, "r"), openSync(target, "r+")];
    try {
      for (const { sector, sectors, isDiscard, dataOffset } of entries.slice(from, to)) {
        if (sectors === 0) continue;
        const lengthBytes = sectors * SECTOR_BYTES;
        const data = isDiscard ? Buffer.alloc(lengthBytes) : readAt(log, dataOffset, lengthBytes);
        writeSync(disk, data, 0, lengthBytes, sector * SECTOR_BYTES);
      }
    } finally {
      closeSync(log);
      closeSync(disk);
    }
  }
}

function readEntries(fd) {
  const head = readAt(fd, 0, SECTOR_BYTES);
  if (head.readBigUInt64LE(0) !== MAGIC) throw new Error("this is no log of dm-log-writes");
  const count = Number(head.readBigUInt64LE(16));
  const sectorBytes = head.readUInt32LE(24);
  const entries = [];
  let offset = sectorBytes;
  for (let index = 0; index < count; index++) {
    const entry = readAt(fd, offset, sectorBytes);
    const [sector, sectors, flags, markBytes] = [0, 8, 16, 24].map((at) =>
      Number(entry.readBigUInt64LE(at)),
    );
    const isDiscard = (flags & FLAG.discard) !== 0;
    offset += sectorBytes;
    entries.push({
      sector: (sector * sectorBytes) / SECTOR_BYTES,
      sectors: (sectors * sectorBytes) / SECTOR_BYTES,
      isFlush: (flags & (FLAG.flush | FLAG.fua)) !== 0,
      isDiscard,
      ...((flags & FLAG.mark) === 0
        ? {}
        : {
            mark: entry
              .subarray(32, 32 + markBytes)
              .toString()
              .replace(/\0+$/, ""),
          }),
      dataOffset: offset,
    });
    if (!isDiscard) offset += sectors * sectorBytes;
  }
  return entries;
}
