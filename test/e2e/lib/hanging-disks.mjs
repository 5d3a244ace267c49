/** Disks that can be made to hang, and I/O on them meanwhile. */
import { alignedBuffer, DeviceFile, writeDevice } from "./device-file.mjs";
import { ramDisks } from "./disks.mjs";
import { MappedDisk } from "./mapped-disk.mjs";
import { seededRandom } from "./random.mjs";
import { MIB } from "./snapshots.mjs";

export const SIZE_BYTES = 8 * MIB;
export const CHUNK_BYTES = 256 * 1024;
export const WRITE_BYTES = 4096;
/** How long the daemon waits for a disk. */
export const BOUND_MS = 10_000;
export const BOUND_ARGS = ["--io-timeout", String(BOUND_MS)];
const STORE_BYTES = 160 * MIB;
const DISK_ERRORS = [/Buffer I\/O error on dev(ice)? ublkb\d+/, /I\/O error, dev ublkb\d+/];

/** Disks that can be made to hang, the first of them an original with content. */
export async function hangingDisks(t, count) {
  t.expectKernelMessages(DISK_ERRORS);
  const below = await ramDisks(t, count, STORE_BYTES);
  const all = [];
  for (const [index, path] of below.entries()) {
    all.push(await MappedDisk.create(t, path, index === 0 ? SIZE_BYTES : STORE_BYTES));
  }
  const content = seededRandom("disks that hang").bytes(SIZE_BYTES);
  await writeDevice(t, all[0].path, content);
  return { all, content };
}

/** Whatever the test's result, nothing waits for a disk after it. */
export function resumeAfter(t, disks) {
  t.defer(() => Promise.all(disks.map((disk) => disk.resume())));
}

/** Writes to the beginning of each chunk in turn, from `first` on. */
export async function writeChunks(t, front, first, count, fill) {
  const file = await DeviceFile.open(t, front);
  const data = alignedBuffer(WRITE_BYTES).fill(fill);
  for (let chunk = first; chunk < first + count; chunk++)
    await file.write(data, chunk * CHUNK_BYTES);
  await file.close();
}

/** The first bytes of a chunk; undefined where they cannot be read. */
export async function readChunk(t, path, chunk) {
  const file = await DeviceFile.open(t, path, { readOnly: true });
  const data = alignedBuffer(WRITE_BYTES);
  try {
    await file.readInto(data, chunk * CHUNK_BYTES);
    return Buffer.from(data);
  } catch {
    return undefined;
  } finally {
    await file.close();
  }
}

export function chunkOf(content, chunk) {
  return content.subarray(chunk * CHUNK_BYTES, chunk * CHUNK_BYTES + WRITE_BYTES);
}
