/**
 * Take is one instant for all devices of a snapshot.
 *
 * A writer writes its next number to the first device, waits for completion, writes it to the second, and so on. So
 * at any instant the numbers on the devices, in this order, never increase, and the first is at most one ahead of the
 * last. If the devices were frozen one after the other, with writes in between, an image would show a later device
 * newer than an earlier one.
 */
import * as assert from "uvu/assert";
import { alignedBuffer, DeviceFile } from "../lib/device-file.mjs";
import { nullDisk, ramDisks } from "../lib/disks.mjs";
import { scenario } from "../lib/scenario.mjs";
import { attach, MIB, storeFolder, takeSnapshot } from "../lib/snapshots.mjs";

const test = scenario(import.meta.url, { sampledIn: 2 });
const LANES = 5;
const LANE_BYTES = 4096;
const DISK_BYTES = 4 * MIB;
const SLOW_NS = 30_000_000;

/** Writers that continue until stopped. */
class Writers {
  #stopped = false;
  #lanes;
  written = 0;

  constructor(files) {
    this.#lanes = Array.from({ length: LANES }, (_, lane) => this.#run(files, lane));
  }

  async #run(files, lane) {
    const buffer = alignedBuffer(LANE_BYTES);
    for (let number = 1; !this.#stopped; number++) {
      buffer.writeUInt32LE(number, 0);
      for (const file of files) {
        await file.write(buffer, lane * LANE_BYTES);
        this.written++;
      }
    }
  }

  async stop() {
    this.#stopped = true;
    await Promise.all(this.#lanes);
  }
}

/** @returns {Promise<number[][]>} per lane, its number on each image */
async function numbersOf(t, images) {
  const buffer = alignedBuffer(LANES * LANE_BYTES);
  const numbers = Array.from({ length: LANES }, () => []);
  for (const image of images) {
    const file = await DeviceFile.open(t, image, { readOnly: true });
    await file.readInto(buffer, 0);
    await file.close();
    for (const [lane, list] of numbers.entries()) {
      list.push(buffer.readUInt32LE(lane * LANE_BYTES));
    }
  }
  return numbers;
}

function assertOneInstant(numbers, round) {
  for (const [lane, list] of numbers.entries()) {
    const text = `take ${round}, lane ${lane}: ${list.join(", ")}`;
    for (let device = 1; device < list.length; device++) {
      assert.ok(list[device] <= list[device - 1], text);
    }
    assert.ok(list[0] - list.at(-1) <= 1, text);
  }
}

async function openFronts(t, devices) {
  const files = [];
  for (const device of devices) {
    const { front } = await attach(t, device);
    files.push(await DeviceFile.open(t, front));
  }
  return files;
}

/** Takes snapshots of the devices while `order` is written in its order, and `aside` on its own. */
async function takeAgainAndAgain(t, { devices, order, aside = [], rounds }) {
  const files = await openFronts(t, devices);
  const stores = [storeFolder(t)];
  const writers = new Writers(order.map((index) => files[index]));
  const others = aside.map((index) => new Writers([files[index]]));
  try {
    for (let round = 1; round <= rounds; round++) {
      const before = writers.written;
      const snapshot = await takeSnapshot(t, devices, { stores });
      const images = order.map((index) => snapshot.images[index]);
      assertOneInstant(await numbersOf(t, images), round);
      assert.ok(writers.written > before, "nothing was written meanwhile");
      await snapshot.destroy();
    }
  } finally {
    await Promise.all([writers, ...others].map((each) => each.stop()));
  }
}

test("two RAM disks, six takes", async (t) => {
  const devices = await ramDisks(t, 2, DISK_BYTES);
  await takeAgainAndAgain(t, { devices, order: [0, 1], rounds: 6 });
});

/** With a slow disk between them, the first and the last could be far apart in time. */
for (const order of [
  [0, 2],
  [2, 0],
]) {
  test(`disks ${order.join(" and ")} around one whose writes are long in flight`, async (t) => {
    const devices = [];
    for (const latencyNs of [0, SLOW_NS, 0]) {
      devices.push(await nullDisk(t, { sizeMib: DISK_BYTES / MIB, latencyNs }));
    }
    await takeAgainAndAgain(t, { devices, order, aside: [1], rounds: 3 });
  });
}

test.run();
