/** Fronts and images over NBD, as third-party programs see them: libnbd's, if installed. */
import { readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { NbdClient } from "../../../packages/nbd/dist/index.js";
import { run } from "../lib/command.mjs";
import { ctl } from "../lib/ctl.mjs";
import { alignedBuffer, DeviceFile } from "../lib/device-file.mjs";
import { loopDisk } from "../lib/disks.mjs";
import { scenario } from "../lib/scenario.mjs";
import { attach, MIB, takeSnapshot } from "../lib/snapshots.mjs";

const test = scenario(import.meta.url);
const SIZE_BYTES = 16 * MIB;
const CONTEXT = "qemu:dirty-bitmap:since-1";
/** Of a dirty bitmap, and of base:allocation. */
const DIRTY = 1;
const ZERO = 2;

async function field(device) {
  const { stdout } = await ctl("snapshot_info", "--device", device, "--field", "nbd_uri");
  return stdout.trim();
}

/** All of an export, by a program of others where there is one. */
async function copyOf(t, uri) {
  const file = join(t.folder, t.name("copy-"));
  t.defer(() => rmSync(file, { force: true }));
  await run(["nbdcopy", uri, file]);
  return readFileSync(file);
}

/** Ranges that have a flag of the context. */
async function rangesWith(flag, uri, context) {
  const stdout = await run(["nbdinfo", "--json", `--map=${context}`, uri]);
  return JSON.parse(stdout)
    .filter(({ type }) => (type & flag) !== 0)
    .map(({ offset, length }) => ({ offset_bytes: offset, length_bytes: length }));
}

test("an image is copied, changes are reported, and its readers end with it", async (t) => {
  const device = await loopDisk(t, SIZE_BYTES);
  const { front } = await attach(t, device);
  const file = await DeviceFile.open(t, front);
  await file.write(alignedBuffer(MIB).fill(1), 2 * MIB);
  const before = await takeSnapshot(t, [device]);
  await before.destroy();
  await file.write(alignedBuffer(4096).fill(2), 2 * MIB + 65_536);
  await file.write(alignedBuffer(4096).fill(3), 9 * MIB);
  const { id, images, destroy } = await takeSnapshot(t, [device]);
  const [image] = images;
  // From here on the image has its data from the original, and from the store.
  await file.write(alignedBuffer(MIB).fill(4), 2 * MIB);

  const uri = await field(device);
  assert.match(uri, `nbd+unix:///image/${id}/`);
  const [listed] = JSON.parse((await ctl("nbd", "list", "--json")).stdout).exports;
  assert.is(listed.kind, "front");

  assert.ok((await copyOf(t, uri)).equals(readFileSync(image)), "the image");
  const { ranges } = await t.client.diff(device, 1);
  const plain = ranges.map(({ offset_bytes, length_bytes }) => ({ offset_bytes, length_bytes }));
  assert.is(plain.length, 2);
  assert.equal(await rangesWith(DIRTY, uri, CONTEXT), plain);
  // Of the file behind the loop device two places were written to, one of them since the take.
  const holes = await rangesWith(ZERO, uri, "base:allocation");
  assert.is(holes[0].offset_bytes, 0);
  const holeBytes = holes.reduce((sum, { length_bytes }) => sum + length_bytes, 0);
  assert.ok(holeBytes >= SIZE_BYTES - 2 * MIB, `${holeBytes} bytes of holes`);
  const shown = await copyOf(t, listed.nbd_uri);
  assert.is(shown[2 * MIB], 4, "the front as it is now");

  const reader = await NbdClient.connect(uri);
  const reads = Array.from({ length: 16 }, (_, at) => reader.read(at * MIB, MIB));
  const settled = Promise.allSettled(reads);
  await destroy();
  await settled;
  const late = await reader.read(0, 4096).then(
    () => undefined,
    (error) => error.code,
  );
  assert.is(late, "CONNECTION_LOST");
  assert.is(await field(device), "");
});

test.run();
