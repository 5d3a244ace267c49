/** blksnap's tests of a mounted volume whose diff storage grows and overflows. */
import { copyFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { run } from "../lib/command.mjs";
import { ctl } from "../lib/ctl.mjs";
import { imageFile, loopDisk, nullDisk, scsiDisk } from "../lib/disks.mjs";
import {
  assertChecksums,
  checkFileSystem,
  checksums,
  makeFileSystem,
  mount,
  mountImage,
} from "../lib/file-systems.mjs";
import { fio } from "../lib/fio.mjs";
import { IMAGE_GONE } from "../lib/kernel-log.mjs";
import { seededRandom } from "../lib/random.mjs";
import { scenario } from "../lib/scenario.mjs";
import { attach, MIB, memberStatus, storeFolder, takeSnapshot } from "../lib/snapshots.mjs";

const test = scenario(import.meta.url, { sampledIn: 2 });
const random = seededRandom("stretch");
const FILES = 12;
const FILL = { rw: "write", bs: "256k", allow_file_create: 1, end_fsync: 1 };

async function volume(t, device) {
  const { front } = await attach(t, device);
  await makeFileSystem("ext4", front);
  const mounted = await mount(t, front);
  for (let number = 0; number < FILES; number++) {
    writeFileSync(join(mounted.path, `file${number}`), random.bytes(1 + random.below(200_000)));
  }
  await run(["sync", "-f", mounted.path]);
  return { device, front, mounted, before: await checksums(mounted.path) };
}

/** Other content in all the files, in place. */
function changeFiles({ mounted }) {
  for (let number = 0; number < FILES; number++) {
    writeFileSync(join(mounted.path, `file${number}`), random.bytes(150_000));
  }
  return run(["sync", "-f", mounted.path]);
}

async function assertImage(t, image, sums) {
  const mounted = await mountImage(t, "ext4", image, ["ro"]);
  await assertChecksums(sums, mounted.path);
  await mounted.unmount();
}

async function endInOrder({ front, mounted }) {
  await mounted.unmount();
  await checkFileSystem("ext4", front);
}

/** Files change on the originals and then on the images, and both keep their own. */
async function simple(t, devices) {
  const volumes = [];
  for (const device of devices) volumes.push(await volume(t, device));
  const file = imageFile(t, 4096);
  const options = { stores: [file], limitBytes: 2048 * MIB };
  const snapshot = await takeSnapshot(t, devices, options);
  for (const each of volumes) await changeFiles(each);
  for (const [index, { mounted, before }] of volumes.entries()) {
    const now = await checksums(mounted.path);
    const image = await mountImage(t, "ext4", snapshot.images[index]);
    await assertChecksums(before, image.path);
    writeFileSync(join(image.path, "added"), random.bytes(MIB));
    const written = await checksums(image.path);
    await image.unmount();
    await assertImage(t, snapshot.images[index], written);
    await assertChecksums(now, mounted.path);
  }
  await snapshot.destroy();
  for (const each of volumes) await endInOrder(each);
  truncateSync(file);
}

test("1000-simple: two ext4, a storage file of 4 KiB that grows, a written image", async (t) => {
  await simple(t, [await loopDisk(t, 24 * MIB), await loopDisk(t, 24 * MIB)]);
});

test("1400-simple: the same on one SCSI disk", async (t) => {
  await simple(t, [(await scsiDisk(t, 24)).path]);
});

test("2000-stretch: the storage grows, then overflows, and the watcher reports it", async (t) => {
  t.expectKernelMessages(IMAGE_GONE);
  const limitBytes = 48 * MIB;
  const state = await volume(t, await nullDisk(t, { sizeMib: 112 }));
  const { device, mounted } = state;
  const { id, images, destroy } = await takeSnapshot(t, [device], { limitBytes });
  const watching = ctl("snapshot_watcher", "--id", id);
  await changeFiles(state);
  await fio(join(mounted.path, "some"), { ...FILL, size: "20m" });
  await assertImage(t, images[0], state.before);
  assert.is((await memberStatus(t, id, device)).lost_bytes, 0);
  await fio(join(mounted.path, "more"), { ...FILL, size: "44m" });
  const { stdout } = await watching;
  assert.match(stdout, /grow up to 48 MiB\. Limit has been reached\.\n/);
  assert.match(
    stdout,
    /The snapshot was corrupted for device \[\d+:\d+\] with error "No space left/,
  );
  assert.ok((await memberStatus(t, id, device)).lost_bytes > 0);
  const now = await checksums(mounted.path);
  await destroy();
  await assertChecksums(now, mounted.path);
  await endInOrder(state);
});

test("2100-overflow: programs still run from the volume, with storage in /dev/shm", async (t) => {
  t.expectKernelMessages(IMAGE_GONE);
  const state = await volume(t, await loopDisk(t, 40 * MIB));
  const { device, mounted, before } = state;
  const program = join(mounted.path, "md5sum");
  copyFileSync("/usr/bin/md5sum", program);
  await run(["sync", "-f", mounted.path]);
  const stores = [storeFolder(t, "/dev/shm")];
  const { id, destroy } = await takeSnapshot(t, [device], { stores, limitBytes: 8 * MIB });
  await fio(join(mounted.path, "filler"), { ...FILL, size: "20m" });
  assert.ok((await memberStatus(t, id, device)).lost_bytes > 0);
  writeFileSync("/proc/sys/vm/drop_caches", "3");
  await run([program, "--check", "--quiet"], { cwd: mounted.path, input: before });
  rmSync(join(mounted.path, "filler"));
  await destroy();
  await run([program, "--check", "--quiet"], { cwd: mounted.path, input: before });
  await endInOrder(state);
});

test.run();
