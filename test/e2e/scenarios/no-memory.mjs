/** ENOMEM: the daemon's memory for maps is full. It reports that, continues, and loses nothing. */
import { join } from "node:path";
import * as assert from "uvu/assert";
import { run } from "../lib/command.mjs";
import { Daemon } from "../lib/daemon.mjs";
import { imageFile } from "../lib/disks.mjs";
import { IMAGE_GONE } from "../lib/kernel-log.mjs";
import { refused } from "../lib/refused.mjs";
import { scenario } from "../lib/scenario.mjs";
import { attach, createSnapshot, GIB, MIB, memberStatus, takeSnapshot } from "../lib/snapshots.mjs";

const test = scenario(import.meta.url, { daemon: false });
const ENOMEM = 12;

/** A daemon whose state directory is a tmpfs of so many MiB. */
async function daemonWith(t, sizeMib) {
  const state = join(t.folder, t.name("state-"));
  await run(["mkdir", state]);
  t.defer(() => run(["rmdir", state]));
  await run(["mount", "-t", "tmpfs", "-o", `size=${sizeMib}m`, "none", state]);
  t.defer(() => run(["umount", state]));
  t.daemon = await Daemon.start({ args: ["--state-dir", state] });
  t.defer(() => t.daemon.stop());
  return state;
}

test("attach and snapshot_take: ENOMEM, no room for the maps", async (t) => {
  const state = await daemonWith(t, 1);
  // Some bytes for each 64 KiB of a device, and 16 for each 256 KiB once it is in a snapshot.
  const huge = imageFile(t, 64 * GIB);
  await refused(t, "OUT_OF_MEMORY", ENOMEM, () => t.client.attach(huge));
  const large = imageFile(t, 4 * GIB);
  await attach(t, large);
  const { id, destroy } = await createSnapshot(t, [large]);
  await run(["dd", "if=/dev/zero", `of=${state}/filler`, "bs=64k", "count=11"]);
  t.defer(() => run(["rm", `${state}/filler`]));
  await refused(t, "OUT_OF_MEMORY", ENOMEM, () => t.client.snapshotTake(id));
  await refused(t, "OUT_OF_MEMORY", ENOMEM, () => t.client.attach(huge));
  await destroy();
  const small = imageFile(t, MIB);
  await attach(t, small);
});

const LETTER = "x".repeat(4096);

/** Writes a block through the front; answers whether the image has what was there before: zeroes. */
async function isSaved(front, image, offsetBytes) {
  await run(["dd", `of=${front}`, "bs=4k", "oflag=direct", ...at("seek", offsetBytes)], {
    input: LETTER,
  });
  const shown = await run([
    "sh",
    "-c",
    `dd if=${image} bs=4k iflag=direct count=1 skip=${offsetBytes / 4096} 2>&1 | tr -d '\\0'`,
  ]);
  if (shown.includes("Input/output error")) return false;
  assert.ok(!shown.includes("x"), shown);
  return true;
}

function at(word, offsetBytes) {
  return [`${word}=${offsetBytes / 4096}`, "count=1", "conv=notrunc"];
}

test("a map grows with writes; if it cannot grow, a part of the image is lost", async (t) => {
  t.expectKernelMessages(IMAGE_GONE);
  const state = await daemonWith(t, 8);
  // Its map has 6 MiB, and that of changed blocks 3: more than there is.
  const device = imageFile(t, 64 * GIB);
  const { front } = await attach(t, device);
  const { id, images, destroy } = await takeSnapshot(t, [device]);
  const [image] = images;
  assert.ok(await isSaved(front, image, MIB));
  await run(["dd", "if=/dev/zero", `of=${state}/filler`, "bs=4k"], { status: 1 });
  assert.ok(await isSaved(front, image, 2 * MIB));
  assert.not(await isSaved(front, image, 40 * GIB));
  assert.is((await memberStatus(t, id, device)).error_code, -28);
  await run(["rm", `${state}/filler`]);
  assert.ok(await isSaved(front, image, 60 * GIB));
  assert.ok(await isSaved(front, image, 3 * MIB));
  assert.not(await isSaved(front, image, 40 * GIB + MIB));
  const { lost_bytes: lost } = await memberStatus(t, id, device);
  assert.is(lost, 2 * GIB);
  await destroy();
});

test.run();
