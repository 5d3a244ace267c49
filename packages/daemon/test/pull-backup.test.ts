/**
 * A pull-mode incremental backup as virtual-machine tools make it, with third-party programs only: nbdinfo lists the
 * blocks that are dirty since the last number, qemu-img reads those, and each time the result equals the image.
 */
import { execFile } from "node:child_process";
import {
  closeSync,
  ftruncateSync,
  openSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { NbdClient } from "@blksnap/nbd";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { CAPACITY_BYTES, detachedSoon, MIB, text, User } from "./nbd-user.js";

const test = suite("pull-mode backup");
const run = promisify(execFile);
const BLOCK_BYTES = 65_536;
const INCREMENTS = 5;
const DIRTY = 1;

interface Extent {
  readonly offset: number;
  readonly length: number;
  readonly type: number;
}

interface Taken {
  readonly image: string;
  readonly number: number;
  readonly generation: string;
  readonly end: () => Promise<void>;
}

async function attached(user: User): Promise<string> {
  return text(await user.ask("POST", "/v1/trackers", { device: user.disk }), "front");
}

async function taken(user: User): Promise<Taken> {
  const device = encodeURIComponent(user.disk);
  const wanted = { devices: [user.disk], stores: [user.store], limit_bytes: 256 * MIB };
  const path = `/v1/snapshots/${text(await user.ask("POST", "/v1/snapshots", wanted), "id")}`;
  assert.is((await user.ask("POST", `${path}/take`)).code, undefined);
  const info = await user.ask("GET", `/v1/trackers/snapshot?device=${device}`);
  const cbt = await user.ask("GET", `/v1/trackers/cbt?device=${device}`);
  return {
    image: text(info, "image"),
    number: Number(cbt["changes_number"]),
    generation: text(cbt, "generation_id"),
    end: async () => assert.is((await user.ask("DELETE", path)).code, undefined),
  };
}

/** The changes since a number; undefined if the export has no bitmap for it. */
async function dirtySince(image: string, number: number): Promise<readonly Extent[] | undefined> {
  const words = ["--json", `--map=qemu:dirty-bitmap:since-${number}`, image];
  const found = await run("nbdinfo", words).catch((error: { stderr: string }) => {
    assert.match(error.stderr, "metadata context", "another failure");
  });
  if (found === undefined) return undefined;
  return (JSON.parse(found.stdout) as Extent[]).filter(({ type }) => (type & DIRTY) !== 0);
}

/** Updates a copy. Returns how many bytes were read. */
async function pull(image: string, copy: string, extents: readonly Extent[]): Promise<number> {
  const piece = `${copy}.piece`;
  const file = openSync(copy, "r+");
  let bytes = 0;
  for (const { offset, length } of extents) {
    const counts = [`bs=${BLOCK_BYTES}`, `skip=${offset / BLOCK_BYTES}`];
    const end = `count=${offset / BLOCK_BYTES + Math.ceil(length / BLOCK_BYTES)}`;
    await run("qemu-img", [
      "dd",
      "-f",
      "raw",
      "-O",
      "raw",
      ...counts,
      end,
      `if=${image}`,
      `of=${piece}`,
    ]);
    const data = readFileSync(piece);
    assert.is(data.length, length);
    writeSync(file, data, 0, data.length, offset);
    bytes += length;
  }
  closeSync(file);
  return bytes;
}

/** Writes all over the first half, until stopped. */
function startLoad(front: string): () => Promise<void> {
  let isEnding = false;
  const running = (async () => {
    const client = await NbdClient.connect(front);
    for (let count = 0; !isEnding; count++) {
      const block = (count * 37) % (CAPACITY_BYTES / 2 / 4096);
      await client.write(block * 4096, Buffer.alloc(4096, count));
    }
    await client.flush();
    await client.close();
  })();
  return async () => {
    isEnding = true;
    await running;
  };
}

/** Other changes of the device between two backups, in the second half. */
const BETWEEN: readonly ((front: string, user: User) => Promise<void>)[] = [
  async (front) => {
    const client = await NbdClient.connect(front);
    await client.write(9 * MIB, Buffer.alloc(2 * MIB, 0x77));
    await client.close();
  },
  // fstrim
  async (front) => {
    await run("qemu-io", ["-f", "raw", "-c", "discard 9M 1M", front]);
  },
  // mkfs, by a file system without a use for the old content
  async (front, user) => {
    const system = join(user.folder, "system");
    const file = openSync(system, "w");
    ftruncateSync(file, 4 * MIB);
    closeSync(file);
    await run("mkfs.ext4", ["-q", "-F", system]);
    const client = await NbdClient.connect(front);
    await client.write(10 * MIB, readFileSync(system));
    await client.close();
    rmSync(system);
  },
  async (front) => {
    const client = await NbdClient.connect(front);
    await client.writeZeroes(12 * MIB, MIB);
    await client.close();
  },
  async () => undefined,
];

async function backsUp(user: User): Promise<void> {
  await user.serve();
  let front = await attached(user);
  const copy = join(user.folder, "copy");
  const points: { copy: string; truth: string }[] = [];
  /** The whole content of the image, and of the current copy. */
  const keep = async (image: string): Promise<void> => {
    const [kept, truth] = [`${copy}-${points.length}`, `${copy}-${points.length}-truth`];
    await run("nbdcopy", [image, truth]);
    writeFileSync(kept, readFileSync(copy));
    points.push({ copy: kept, truth });
  };
  let end = startLoad(front);
  const full = await taken(user);
  await run("nbdcopy", [full.image, copy]);
  await keep(full.image);
  await full.end();
  for (let since = full.number, count = 0; count < INCREMENTS; count++) {
    await BETWEEN[count]!(front, user);
    const { image, number, generation, end: destroy } = await taken(user);
    assert.is(generation, full.generation);
    const extents = await dirtySince(image, since);
    assert.ok(extents !== undefined);
    const bytes = await pull(image, copy, extents);
    assert.ok(bytes < CAPACITY_BYTES, `${bytes} bytes`);
    await keep(image);
    await destroy();
    since = number;
  }
  await end();

  // Growth begins a new generation without bitmaps of earlier ones, so the next backup is a full one.
  await detachedSoon(user, encodeURIComponent(user.disk));
  truncateSync(user.disk, CAPACITY_BYTES + 2 * MIB);
  front = await attached(user);
  end = startLoad(front);
  const grown = await taken(user);
  assert.is.not(grown.generation, full.generation);
  assert.is(await dirtySince(grown.image, full.number + INCREMENTS), undefined);
  await run("nbdcopy", [grown.image, copy]);
  assert.is(readFileSync(copy).length, CAPACITY_BYTES + 2 * MIB);
  await keep(grown.image);
  await grown.end();
  await end();

  for (const [index, { copy: kept, truth }] of points.entries()) {
    assert.ok(readFileSync(kept).equals(readFileSync(truth)), `point ${index}`);
    const words = ["compare", "-q", "-f", "raw", "-F", "raw", kept, truth];
    await run("qemu-img", words);
  }
  await detachedSoon(user, encodeURIComponent(user.disk));
  assert.is(await user.end("SIGTERM"), 0, user.stderr);
}

test("full, five increments under load with trim and mkfs, and a full one after a resize", async () => {
  const user = new User();
  try {
    await backsUp(user);
  } finally {
    await user.close();
  }
});

test.run();
