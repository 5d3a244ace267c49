/** Operations that hang, and those that do not: each has a worker of its own. */
import { spawnSync } from "node:child_process";
import { closeSync, constants, openSync } from "node:fs";
import { cpus } from "node:os";
import { join } from "node:path";
import { MappedMemory, PromiseRing, prepareFsync, Ring, SqeFlag } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { at, popCompletions, withFolderMeanwhile } from "./support.js";

const OPENAT = 18;
const AT_FDCWD = -100;
const FSYNC = 1000;
/** More than the kernel gives threads to. */
const HANGING = Math.max(4 * cpus().length + 4, 70);

/** Opens a path for reading on a worker: a FIFO without a writer makes it hang. */
function prepareOpen(ring: Ring, path: MappedMemory, low: number, high: number): void {
  const index = ring.nextSqe();
  const words = ring.sqes32.subarray(index, index + 16);
  words.fill(0);
  words[0] = OPENAT | (SqeFlag.ASYNC << 8);
  words[1] = AT_FDCWD;
  words.set(at(path), 4);
  words[8] = low;
  words[9] = high;
}

interface Hanging {
  readonly fifo: MappedMemory;
  /** A file that answers. */
  readonly fd: number;
  /** Ends what hangs. */
  release(): void;
}

async function withHanging(use: (hanging: Hanging) => Promise<void>): Promise<void> {
  await withFolderMeanwhile(async (folder) => {
    const path = join(folder, "fifo");
    assert.is(spawnSync("mkfifo", [path]).status, 0);
    const fifo = MappedMemory.anonymous(4096);
    new Uint8Array(fifo.buffer).set(Buffer.from(`${path}\0`));
    const fd = openSync(join(folder, "file"), "w");
    let writer = -1;
    const release = (): void => {
      if (writer < 0) writer = openSync(path, constants.O_RDWR);
    };
    try {
      await use({ fifo, fd, release });
    } finally {
      release();
      closeSync(writer);
      closeSync(fd);
      fifo.unmap();
    }
  });
}

test("a ring: what hangs keeps nothing else from being started", async () => {
  await withHanging(async ({ fifo, fd, release }) => {
    const ring = new Ring({ entries: 16, cqEntries: 256, workerForEach: true });
    // Also where the ring is full, and entered in between.
    for (let i = 0; i < HANGING; i++) prepareOpen(ring, fifo, i, 0);
    prepareFsync(ring, fd, 0, FSYNC, 0, 0);
    assert.equal(popCompletions(ring, 1), [{ low: FSYNC, high: 0, result: 0 }]);
    release();
    for (const { low, result } of popCompletions(ring, HANGING)) {
      assert.ok(low < HANGING && result >= 0, `${low}: ${result}`);
      closeSync(result);
    }
    ring.close();
  });
});

test("promise rings: the limit is that of all rings of a thread", async () => {
  await withHanging(async ({ fifo, fd, release }) => {
    const rings = [new PromiseRing(8), new PromiseRing(8)];
    const hanging = rings.flatMap((ring) =>
      Array.from({ length: HANGING }, () =>
        ring.submit((target, low, high) => prepareOpen(target, fifo, low, high), fifo),
      ),
    );
    const synced = rings.map((ring) =>
      ring.submit((target, low, high) => prepareFsync(target, fd, 0, low, high, 0)),
    );
    assert.equal(await Promise.all(synced), [0, 0]);
    release();
    for (const result of await Promise.all(hanging)) {
      assert.ok(result >= 0, `${result}`);
      closeSync(result);
    }
    for (const ring of rings) ring.close();
  });
});

test.run();
