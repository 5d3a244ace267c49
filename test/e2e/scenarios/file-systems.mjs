/** Files of the instant of take, read from the mounted image after heavy changes to the original. */
import {
  appendFileSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { run } from "../lib/command.mjs";
import { nullDisk } from "../lib/disks.mjs";
import {
  assertChecksums,
  checkFileSystem,
  checksums,
  makeFileSystem,
  mount,
  mountImage,
} from "../lib/file-systems.mjs";
import { fio } from "../lib/fio.mjs";
import { seededRandom } from "../lib/random.mjs";
import { scenario } from "../lib/scenario.mjs";
import { attach, takeSnapshot } from "../lib/snapshots.mjs";

const test = scenario(import.meta.url);
const random = seededRandom("file systems");

/** Small and large ones, in four folders, of sizes that are not a multiple of anything. */
function makeFiles(folder) {
  for (let number = 0; number < 24; number++) {
    const sub = join(folder, `sub${number % 4}`);
    mkdirSync(sub, { recursive: true });
    const size = number % 6 === 0 ? 900_000 + random.below(900_000) : 1 + random.below(40_000);
    writeFileSync(join(sub, `file${number}`), random.bytes(size));
  }
}

function files(folder) {
  return readdirSync(folder).map((name) => join(folder, name));
}

/** Deletes, renames, overwrites, grows: buffered, direct and with fio's own checksums. */
async function changeEverything(folder) {
  for (const path of files(join(folder, "sub0"))) rmSync(path);
  for (const path of files(join(folder, "sub1"))) renameSync(path, `${path}.new`);
  for (const path of files(join(folder, "sub2"))) {
    writeFileSync(path, random.bytes(statSync(path).size), { flag: "r+" });
  }
  for (const path of files(join(folder, "sub3"))) appendFileSync(path, random.bytes(5000));
  const verified = { rw: "randwrite", verify: "crc32c", allow_file_create: 1 };
  const queued = { ioengine: "io_uring", iodepth: 16 };
  await fio(join(folder, "direct"), { ...verified, size: "2m", bs: "4k", direct: 1, ...queued });
  await fio(join(folder, "buffered"), { ...verified, size: "4m", bs: "4k" });
  await run(["sync", "-f", folder]);
}

async function volume(t, type, sizeMib) {
  const device = await nullDisk(t, { sizeMib });
  const { front, detach } = await attach(t, device);
  await makeFileSystem(type, front);
  const mounted = await mount(t, front);
  makeFiles(mounted.path);
  return { type, device, front, detach, mounted, before: await checksums(mounted.path) };
}

test.quick("ext4 and xfs in one snapshot keep every file as it was at take", async (t) => {
  const volumes = [await volume(t, "ext4", 64), await volume(t, "xfs", 320)];
  const devices = volumes.map(({ device }) => device);
  const snapshot = await takeSnapshot(t, devices);
  for (const { mounted } of volumes) await changeEverything(mounted.path);
  for (const [index, { type, before }] of volumes.entries()) {
    const image = await mountImage(t, type, snapshot.images[index], ["ro"]);
    await assertChecksums(before, image.path);
    await image.unmount();
    await checkFileSystem(type, snapshot.images[index]);
  }
  const changed = await Promise.all(volumes.map(({ mounted }) => checksums(mounted.path)));
  await snapshot.destroy();
  for (const [index, { type, front, mounted }] of volumes.entries()) {
    await assertChecksums(changed[index], mounted.path);
    await mounted.unmount();
    await checkFileSystem(type, front);
  }
});

test.quick("an image can be written, mounted again, and leaves the original alone", async (t) => {
  const { device, mounted, before } = await volume(t, "ext4", 64);
  const snapshot = await takeSnapshot(t, [device]);
  const image = await mountImage(t, "ext4", snapshot.images[0]);
  await changeEverything(image.path);
  const changed = await checksums(image.path);
  await image.unmount();
  await assertChecksums(before, mounted.path);
  await changeEverything(mounted.path);
  const again = await mountImage(t, "ext4", snapshot.images[0], ["ro"]);
  await assertChecksums(changed, again.path);
  await again.unmount();
  await checkFileSystem("ext4", snapshot.images[0]);
});

test("a device detached after its snapshot carries the data itself", async (t) => {
  const { device, mounted, before, front, detach } = await volume(t, "ext4", 64);
  const snapshot = await takeSnapshot(t, [device]);
  writeFileSync(join(mounted.path, "big"), random.bytes(8_000_000));
  await snapshot.destroy();
  await mounted.unmount();
  await run(["cmp", front, device]);
  await detach();
  await checkFileSystem("ext4", device);
  const direct = await mount(t, device, ["ro"]);
  await assertChecksums(before, direct.path);
});

test.run();
