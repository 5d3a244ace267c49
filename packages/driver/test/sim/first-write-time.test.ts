/** How many requests to disks a write waits for, one after the other, measured with a simulated clock. */
import { SimMachine } from "@blksnap/sim-kernel";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { startDriver } from "./load.js";
import { DISK_BYTES } from "./settings.js";

const BLOCK_BYTES = 4096;
const CHUNK_BYTES = 32_768;
/** So long that nothing else counts, but shorter than any bound. */
const LATENCY_MS = 4;

/** How many disk requests in a row each write waits for, by its position. */
async function steps(
  onOverflow: "break-snapshot" | "fail-writes",
  lengthBytes: number = BLOCK_BYTES,
): Promise<number[]> {
  const machine = new SimMachine({ seed: 1 });
  try {
    const disks = ["sda", "sds"].map((name) => machine.addDisk(name, { sizeBytes: DISK_BYTES }));
    const run = <Value>(work: Promise<Value>) => machine.run(work) as Promise<Value>;
    const driver = await run(startDriver(machine, () => undefined));
    const { id } = await run(
      driver.snapshotCreate({
        devices: ["/dev/sda"],
        stores: ["/dev/sds"],
        limitBytes: DISK_BYTES,
        onOverflow: { policy: onOverflow },
      }),
    );
    await run(driver.snapshotTake(id));
    const { trackers } = await run(driver.status());
    const user = machine.user(trackers[0]?.front as string);
    const latencyUs = LATENCY_MS * 1000;
    for (const disk of disks) disk.medium.latencyUs = [latencyUs, latencyUs];
    const taken: number[] = [];
    // The first write of a chunk, one to a chunk with a slot, the same again.
    for (const at of [CHUNK_BYTES, CHUNK_BYTES + 5 * BLOCK_BYTES, CHUNK_BYTES + 5 * BLOCK_BYTES]) {
      const before = machine.nowMs;
      await run(user.write(at, new Uint8Array(lengthBytes).fill(7)));
      taken.push(Math.round((machine.nowMs - before) / LATENCY_MS));
    }
    user.close();
    return taken;
  } finally {
    await machine.close();
  }
}

test("a first write waits for a read and a write, the next one to the block for a write", async () => {
  assert.equal(await steps("break-snapshot"), [2, 2, 1]);
});

test("a write that can be refused also waits for the slot before the original is written", async () => {
  assert.equal(await steps("fail-writes"), [3, 3, 1]);
});

test("a write of several blocks takes as long, unless it needs two copies", async () => {
  // It reaches into the next chunk.
  assert.equal(await steps("break-snapshot", 5 * BLOCK_BYTES), [2, 3, 1]);
});

test.run();
