/** The whole image equals a copy from the take, however much is written to the front meanwhile. */
import { rmSync } from "node:fs";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { run } from "../lib/command.mjs";
import { lateReadingDisk } from "../lib/device-mapper.mjs";
import { nullDisk, ramDisks } from "../lib/disks.mjs";
import { endFio, startLoad } from "../lib/fio.mjs";
import { scenario } from "../lib/scenario.mjs";
import { attach, MIB, memberStatus, takeSnapshot } from "../lib/snapshots.mjs";

const test = scenario(import.meta.url, { sampledIn: 2 });
const SIZE_MIB = 16;

/** A device full of random bytes with its front, a copy of it, and a snapshot of that state. */
async function snapshotWithCopy(t, device) {
  const { front } = await attach(t, device);
  const copy = join(t.folder, "copy");
  t.defer(() => rmSync(copy));
  await run(["dd", "if=/dev/urandom", `of=${copy}`, "bs=1M", `count=${SIZE_MIB}`]);
  await run(["dd", `if=${copy}`, `of=${front}`, "bs=1M", "oflag=direct"]);
  const { id, images } = await takeSnapshot(t, [device]);
  return { id, front, image: images[0], copy };
}

async function compareUnderLoad(t, device, load) {
  const { id, front, image, copy } = await snapshotWithCopy(t, device);
  const writing = await startLoad(t, front, { ...load, direct: 1 }, { device });
  await run(["cmp", image, copy]);
  await run(["dd", `if=${image}`, "of=/dev/null", "bs=128k", "iflag=direct"]);
  await endFio(writing);
  await run(["sh", "-c", `dd if=${image} bs=1M iflag=direct | cmp - ${copy}`]);
  const { copied_bytes: copied, lost_bytes: lost } = await memberStatus(t, id, device);
  assert.ok(copied > MIB, `only ${copied} bytes were copied: there was no load`);
  assert.is(lost, 0);
}

test("random writes of mixed sizes, io_uring, on a RAM disk", async (t) => {
  const [device] = await ramDisks(t, 1, SIZE_MIB * MIB);
  const load = {
    ioengine: "io_uring",
    iodepth: 4,
    rw: "randwrite",
    bssplit: "4k/60:16k/20:512k/20",
  };
  await compareUnderLoad(t, device, load);
});

test("writes of 512 bytes from several threads, on a disk with a latency", async (t) => {
  const device = await nullDisk(t, { sizeMib: SIZE_MIB, latencyNs: 100_000 });
  await compareUnderLoad(t, device, { numjobs: 3, rw: "randwrite", bs: "512" });
});

test("reads of the original may see writes from after they began", async (t) => {
  const disk = await nullDisk(t, { sizeMib: SIZE_MIB });
  const device = await lateReadingDisk(t, disk, SIZE_MIB * MIB, 8);
  const load = { ioengine: "io_uring", iodepth: 16, rw: "randwrite", bs: "4k", norandommap: true };
  await compareUnderLoad(t, device, load);
});

test("buffered sequential overwriting of the whole device", async (t) => {
  const [device] = await ramDisks(t, 1, SIZE_MIB * MIB);
  const { id, front, image, copy } = await snapshotWithCopy(t, device);
  await run(["dd", "if=/dev/zero", `of=${front}`, "bs=1M", `count=${SIZE_MIB}`, "conv=fsync"]);
  await run(["cmp", image, copy]);
  assert.is((await memberStatus(t, id, device)).copied_bytes, SIZE_MIB * MIB);
});

test.run();
