/** Destroy completes, whatever uses the images at that moment, and the original continues. */
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { start } from "../lib/command.mjs";
import { nullDisk } from "../lib/disks.mjs";
import { checkFileSystem, makeFileSystem, mount, mountImage } from "../lib/file-systems.mjs";
import { endFio, startLoad } from "../lib/fio.mjs";
import { IMAGE_GONE } from "../lib/kernel-log.mjs";
import { seededRandom } from "../lib/random.mjs";
import { scenario } from "../lib/scenario.mjs";
import { attach, takeSnapshot } from "../lib/snapshots.mjs";

const test = scenario(import.meta.url);
const random = seededRandom("destroy");

async function mountedOriginal(t, type, sizeMib) {
  const device = await nullDisk(t, { sizeMib });
  const { front } = await attach(t, device);
  await makeFileSystem(type, front);
  const mounted = await mount(t, front);
  for (let number = 0; number < 8; number++) {
    writeFileSync(join(mounted.path, `file${number}`), random.bytes(500_000));
  }
  return { device, front, mounted };
}

/** Reads all files again and again, past the page cache, until it is killed. */
function readFiles(t, folder) {
  const script =
    "while :; do for f in file*; do dd if=$f of=/dev/null bs=64k iflag=direct; done; done";
  const reading = start(["sh", "-c", script], { cwd: folder });
  t.defer(() => {
    reading.kill("SIGKILL");
    return reading.end();
  });
  return reading;
}

function writeFiles(t, folder, where) {
  const load = { rw: "randwrite", bs: "4k", size: "4m", allow_file_create: 1, direct: 1 };
  return startLoad(t, join(folder, "load"), load, where);
}

async function endAll(...loads) {
  for (const load of loads) {
    load.kill("SIGKILL");
    await load.end();
  }
}

async function destroyMounted(t, type, sizeMib) {
  t.expectKernelMessages(IMAGE_GONE);
  const { device, front, mounted } = await mountedOriginal(t, type, sizeMib);
  const snapshot = await takeSnapshot(t, [device]);
  const image = await mountImage(t, type, snapshot.images[0]);
  const loads = [
    readFiles(t, image.path),
    await writeFiles(t, mounted.path, { device }),
    await writeFiles(t, image.path, { device, kind: "image_io" }),
  ];
  await snapshot.destroy();
  await endAll(...loads);
  assert.throws(() => readFileSync(join(image.path, "file1")), /EIO|ENXIO|ESHUTDOWN|ENOENT|UCLEAN/);
  await image.unmount();
  assert.is(readdirSync(mounted.path).filter((name) => name.startsWith("file")).length, 8);
  await mounted.unmount();
  await checkFileSystem(type, front);
}

test("destroy completes while an ext4 image is mounted, read and written", (t) =>
  destroyMounted(t, "ext4", 64));

test("destroy completes while an xfs image is mounted, read and written", (t) =>
  destroyMounted(t, "xfs", 320));

test("destroy completes while many read a raw image", async (t) => {
  t.expectKernelMessages(IMAGE_GONE);
  const device = await nullDisk(t, { sizeMib: 32, latencyNs: 500_000 });
  const { front } = await attach(t, device);
  const snapshot = await takeSnapshot(t, [device]);
  const [image] = snapshot.images;
  const load = { ioengine: "io_uring", iodepth: 32, direct: 1, bs: "4k" };
  const writing = await startLoad(t, front, { ...load, rw: "randwrite" }, { device });
  const reading = await startLoad(
    t,
    image,
    { ...load, rw: "randrw" },
    { device, kind: "image_io" },
  );
  await snapshot.destroy();
  assert.is.not((await reading.end()).status, 0, "the image's reader continued after destroy");
  await endFio(writing);
});

test("destroy and the next take work repeatedly under load", async (t) => {
  t.expectKernelMessages(IMAGE_GONE);
  const device = await nullDisk(t, { sizeMib: 32 });
  const { front } = await attach(t, device);
  const load = { ioengine: "io_uring", iodepth: 16, rw: "randwrite", bs: "4k", direct: 1 };
  const writing = await startLoad(t, front, load, { device });
  for (let round = 0; round < 8; round++) {
    const snapshot = await takeSnapshot(t, [device]);
    await snapshot.destroy();
  }
  await endFio(writing);
});

test.run();
