/** File systems under constant change: each image of several snapshots in a row is consistent. */
import { mkdirSync } from "node:fs";
import { open, rename, rm, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { nullDisk } from "../lib/disks.mjs";
import { checkFileSystem, makeFileSystem, mount, mountImage } from "../lib/file-systems.mjs";
import { endFio, startLoad } from "../lib/fio.mjs";
import { seededRandom, seedsOr } from "../lib/random.mjs";
import { scenario } from "../lib/scenario.mjs";
import { attach, storeFolder, takeSnapshot } from "../lib/snapshots.mjs";

const test = scenario(import.meta.url);
const ROUNDS = 3;
const BTRFS_ROUNDS = 2;
const NAMES = 40;
/** Leaves the checks of the images some of the processor. */
const PAUSE_MS = 3;

/** Creates, grows, truncates, renames and deletes files until stopped. */
class Churn {
  #stopped = false;
  #random;
  #folder;
  #ended;

  constructor(folder, random) {
    this.#random = random;
    this.#folder = folder;
    mkdirSync(folder);
    this.#ended = Promise.all([this.#run(), this.#run(), this.#run()]);
  }

  #path() {
    return join(this.#folder, `file${this.#random.below(NAMES)}`);
  }

  async #step() {
    const random = this.#random;
    switch (random.below(6)) {
      case 0:
        return rm(this.#path(), { force: true });
      case 1:
        return rename(this.#path(), this.#path());
      case 2:
        return truncate(this.#path(), random.below(100_000));
      case 3:
        return this.#synced(this.#path());
      default:
        return writeFile(this.#path(), random.bytes(random.below(60_000)), { flag: "a" });
    }
  }

  async #synced(path) {
    const file = await open(path, "a");
    try {
      await file.sync();
    } finally {
      await file.close();
    }
  }

  async #run() {
    while (!this.#stopped) {
      await sleep(PAUSE_MS);
      await this.#step().catch((error) => {
        // What is renamed or cut may have been deleted; a full disk is part of the exercise.
        if (error.code !== "ENOENT" && error.code !== "ENOSPC") throw error;
      });
    }
  }

  async stop() {
    this.#stopped = true;
    await this.#ended;
  }
}

async function busyVolume(t, type, sizeMib, random) {
  const device = await nullDisk(t, { sizeMib });
  const { front } = await attach(t, device);
  await makeFileSystem(type, front);
  const mounted = await mount(t, front);
  const churn = new Churn(join(mounted.path, "churn"), random);
  const load = {
    rw: "randrw",
    bsrange: "512-32k",
    size: "4m",
    allow_file_create: 1,
    rate_iops: 300,
  };
  const fio = await startLoad(t, join(mounted.path, "load"), load, { device });
  return { type, device, front, mounted, churn, fio };
}

/** A file system frozen in time: xfs leaves work for its log, which the mount does. */
async function assertImageInOrder(t, type, image) {
  // The kernel takes a second btrfs of one uuid for another device of the first.
  if (type !== "btrfs") await (await mountImage(t, type, image)).unmount();
  await checkFileSystem(type, image);
}

async function snapshotsInARow(t, volumes, rounds) {
  const devices = volumes.map(({ device }) => device);
  const stores = [storeFolder(t)];
  for (let round = 0; round < rounds; round++) {
    const snapshot = await takeSnapshot(t, devices, { stores });
    for (const [index, { type }] of volumes.entries()) {
      await assertImageInOrder(t, type, snapshot.images[index]);
    }
    await snapshot.destroy();
  }
  for (const { type, front, mounted, churn, fio } of volumes) {
    await churn.stop();
    await endFio(fio);
    await mounted.unmount();
    await checkFileSystem(type, front);
  }
}

for (const seed of seedsOr(["one"])) {
  test(`ext4 and xfs, ${ROUNDS} snapshots in a row (SEED=${seed})`, async (t) => {
    const random = seededRandom(seed);
    const volumes = [
      await busyVolume(t, "ext4", 48, random),
      await busyVolume(t, "xfs", 304, random),
    ];
    await snapshotsInARow(t, volumes, ROUNDS);
  });

  test(`btrfs, ${BTRFS_ROUNDS} snapshots in a row (SEED=${seed})`, async (t) => {
    const volumes = [await busyVolume(t, "btrfs", 192, seededRandom(`btrfs ${seed}`))];
    await snapshotsInARow(t, volumes, BTRFS_ROUNDS);
  });
}

test.run();
