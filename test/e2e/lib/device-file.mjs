/** Plain reads and writes of a device, several at a time, past the page cache or through it. */
import { constants } from "node:fs";
import { open } from "node:fs/promises";
import { MappedMemory } from "@blksnap/uring";

const { O_DIRECT, O_DSYNC, O_RDWR, O_RDONLY } = constants;
const PIECE_BYTES = 2 ** 20;

/** Memory at a page boundary, as direct I/O wants it. */
export function alignedBuffer(lengthBytes) {
  return Buffer.from(MappedMemory.anonymous(lengthBytes).buffer).subarray(0, lengthBytes);
}

export class DeviceFile {
  #handle;

  constructor(handle) {
    this.#handle = handle;
  }

  /** Opens the device until the test ends or close() is called. */
  static async open(t, path, { direct = true, readOnly = false, dsync = false } = {}) {
    const access = readOnly ? O_RDONLY : O_RDWR;
    const flags = access | (direct ? O_DIRECT : 0) | (dsync ? O_DSYNC : 0);
    const file = new DeviceFile(await open(path, flags));
    t.defer(() => file.close());
    return file;
  }

  /** Fills the buffer from the offset on. */
  async readInto(buffer, offset) {
    const { bytesRead } = await this.#handle.read(buffer, 0, buffer.length, offset);
    if (bytesRead !== buffer.length) {
      throw new Error(`read ${bytesRead} of ${buffer.length} bytes at ${offset}`);
    }
  }

  async write(buffer, offset) {
    const { bytesWritten } = await this.#handle.write(buffer, 0, buffer.length, offset);
    if (bytesWritten !== buffer.length) {
      throw new Error(`wrote ${bytesWritten} of ${buffer.length} bytes at ${offset}`);
    }
  }

  sync() {
    return this.#handle.datasync();
  }

  async close() {
    const handle = this.#handle;
    this.#handle = undefined;
    await handle?.close();
  }
}

/** Writes the whole content, which may not be aligned in memory. */
export async function writeDevice(t, path, content) {
  const file = await DeviceFile.open(t, path);
  const piece = alignedBuffer(PIECE_BYTES);
  for (let at = 0; at < content.length; at += PIECE_BYTES) {
    const length = content.copy(piece, 0, at, at + PIECE_BYTES);
    await file.write(piece.subarray(0, length), at);
  }
  await file.close();
}

/** Reads the first `lengthBytes` of a device. */
export async function readDevice(t, path, lengthBytes) {
  const file = await DeviceFile.open(t, path, { readOnly: true });
  const content = Buffer.allocUnsafe(lengthBytes);
  const piece = alignedBuffer(PIECE_BYTES);
  for (let at = 0; at < lengthBytes; at += PIECE_BYTES) {
    const part = piece.subarray(0, Math.min(PIECE_BYTES, lengthBytes - at));
    await file.readInto(part, at);
    part.copy(content, at);
  }
  await file.close();
  return content;
}

/** Offset of the first byte in which two buffers of one length differ; -1 where there is none. */
export function firstDifference(actual, expected) {
  if (actual.equals(expected)) return -1;
  return actual.findIndex((byte, index) => byte !== expected[index]);
}

/** Fails unless the device holds exactly the expected bytes. */
export async function assertContent(t, path, expected) {
  const at = firstDifference(await readDevice(t, path, expected.length), expected);
  if (at >= 0) throw new Error(`${path} differs from what it should be at byte ${at}`);
}
