/** Device-mapper nodes over test disks. Each is gone after the test that made it. */
import { run } from "./command.mjs";

/** Sectors of a device. */
export async function sectorsOf(device) {
  return Number((await run(["blockdev", "--getsz", device])).trim());
}

/**
 * A node of the given table.
 *
 * @param {string[]} table lines as dmsetup reads them
 */
export async function mapped(t, table) {
  const name = t.name("blksnap-e2e-");
  await run(["dmsetup", "create", name], { input: table.join("\n") });
  t.defer(() => run(["dmsetup", "remove", "--retry", name]));
  /** Replaces its table, under its users. */
  async function load(next) {
    await run(["dmsetup", "load", name], { input: next.join("\n") });
    // A file system on it is not frozen meanwhile: one whose disk has failed could not be thawed.
    await run(["dmsetup", "resume", "--nolockfs", name]);
  }
  /** All its requests wait from now on, also those in flight. */
  const suspend = () => run(["dmsetup", "suspend", "--noflush", "--nolockfs", name]);
  const resume = () => run(["dmsetup", "resume", "--nolockfs", name]);
  return { path: `/dev/mapper/${name}`, load, suspend, resume };
}

export async function linear(t, below) {
  const { path } = await mapped(t, [`0 ${await sectorsOf(below)} linear ${below} 0`]);
  return path;
}

/**
 * A disk that executes a read only after a delay, so that the read sees all writes from meanwhile. Writes are not
 * delayed.
 */
export async function lateReadingDisk(t, below, sizeBytes, delayMs) {
  await run(["modprobe", "dm-delay"]);
  const { path } = await mapped(t, [
    `0 ${sizeBytes / 512} delay ${below} 0 ${delayMs} ${below} 0 0`,
  ]);
  return path;
}

/** A disk that executes each request only after a delay: the sender may be dead by then. */
export async function lateDisk(t, below, sizeBytes, delayMs) {
  await run(["modprobe", "dm-delay"]);
  const { path } = await mapped(t, [`0 ${sizeBytes / 512} delay ${below} 0 ${delayMs}`]);
  return path;
}

/**
 * A disk with a part that can be made to fail.
 *
 * @param {{offsetBytes: number, lengthBytes: number}} part
 * @param {"error_reads" | "error_writes"} fault which requests of the part fail; the others go through
 */
export async function failingDisk(t, below, { offsetBytes, lengthBytes }, fault) {
  await run(["modprobe", "dm-flakey"]);
  const [sectors, first, count] = [await sectorsOf(below), offsetBytes / 512, lengthBytes / 512];
  const end = first + count;
  const sound = [`0 ${sectors} linear ${below} 0`];
  // Up for no second, down for one, and so on: always down.
  const failing = [
    `0 ${first} linear ${below} 0`,
    `${first} ${count} flakey ${below} ${first} 0 1 1 ${fault}`,
    `${end} ${sectors - end} linear ${below} ${end}`,
  ];
  const { path, load } = await mapped(t, sound);
  return { path, fail: () => load(failing), heal: () => load(sound) };
}

/** Two disks whose extents lie on one, in turn: what one writes beyond its own hits the other. */
export async function interleavedDisks(t, below, extentBytes) {
  const extent = extentBytes / 512;
  const extents = Math.floor((await sectorsOf(below)) / extent / 2);
  const table = (offset) =>
    Array.from(
      { length: extents },
      (_, index) => `${index * extent} ${extent} linear ${below} ${(2 * index + offset) * extent}`,
    );
  const disks = [await mapped(t, table(0)), await mapped(t, table(1))];
  return { paths: disks.map(({ path }) => path), sizeBytes: extents * extentBytes };
}
