/** Block devices as originals of `--frontend nbd`: read and written by programs of others, snapshots, exports, a kill. */
import { mkdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { attempt, run } from "../lib/command.mjs";
import { ctl } from "../lib/ctl.mjs";
import { Daemon } from "../lib/daemon.mjs";
import { linear } from "../lib/device-mapper.mjs";
import { loopDisk, partition } from "../lib/disks.mjs";
import { scenario } from "../lib/scenario.mjs";
import { attach, MIB, takeSnapshot } from "../lib/snapshots.mjs";

const test = scenario(import.meta.url, { daemon: false });
const SIZE_BYTES = 16 * MIB;
const SECTOR_4K = 4096;

async function ok(...words) {
  const { status, stdout, stderr } = await ctl(...words);
  assert.is(status, 0, `${words.join(" ")}: ${stderr}${stdout}`);
  return stdout;
}

function write(uri, ...commands) {
  return run(["qemu-io", "-f", "raw", ...commands.flatMap((one) => ["-c", one]), uri]);
}

async function contentOf(into, place) {
  const copy = join(into, "copy");
  await run(["nbdcopy", place, copy]);
  const content = readFileSync(copy);
  rmSync(copy);
  return content;
}

/** All of it on one device. @returns what has been written, for the next daemon */
async function used(t, into, device) {
  const { front, detach } = await attach(t, device);
  assert.match(front, "nbd+unix://");
  await write(front, "write -P 1 0 4M", "write -P 2 -f 8M 64k", "flush");
  // It belongs to the daemon.
  const mounted = await attempt(["mkfs.ext4", "-q", "-F", device]);
  assert.match(mounted.stderr, /in use|busy/);
  const before = await contentOf(into, front);
  const { id, images, destroy } = await takeSnapshot(t, [device]);
  await write(front, "write -P 3 1M 1M", "write -z 2M 1M", "discard 3M 64k", "write -P 4 -f 8M 4k");
  assert.ok(before.equals(await contentOf(into, images[0])), "the image");
  const store = join(into, "store");
  await ok("export", "-d", device, "--to", store, "--auto");
  return { device, front, id, image: images[0], before, store, detach, destroy };
}

/** With the next daemon: the image is the same, the next export incremental, and a restore equal. */
async function usedAgain(into, { device, front, image, before, store, detach, destroy }) {
  assert.ok(before.equals(await contentOf(into, image)), "the image after a kill");
  const now = await contentOf(into, front);
  assert.not.ok(now.equals(before));
  await destroy();
  const own = ["-f", into, "-l", "64M"];
  const said = await ok("export", "-d", device, "--to", store, "--auto", ...own);
  assert.match(said, /incremental: /);
  const restored = join(into, "restored");
  await ok("restore", "--from", store, "-d", device, "--to", restored);
  assert.ok(now.equals(readFileSync(restored)));
  rmSync(restored);
  await detach();
  assert.ok(now.equals(await contentOf(into, device)), "the original has it all");
}

test("loop devices, a partition and device-mapper are originals without ublk", async (t) => {
  const into = join(t.folder, "files");
  mkdirSync(into);
  t.defer(() => rmSync(into, { recursive: true }));
  const disk = await loopDisk(t, 2 * SIZE_BYTES);
  const devices = [
    await loopDisk(t, SIZE_BYTES),
    await loopDisk(t, SIZE_BYTES, { sectorBytes: SECTOR_4K }),
    ...(await partition(disk, [SIZE_BYTES / MIB])),
    await linear(t, await loopDisk(t, SIZE_BYTES)),
  ];
  const first = await Daemon.startFor(t, { args: ["--frontend", "nbd"] });
  const all = [];
  for (const device of devices) all.push(await used(t, into, device));
  first.kill("SIGKILL");
  await first.ended();
  const next = await Daemon.startFor(t, { args: ["--frontend", "nbd"], name: "next" });
  for (const one of all) await usedAgain(into, one);
  assert.equal(await t.client.snapshotCollect(), []);
  await next.stop();
});

test.run();
