/**
 * Destroy while programs of others read the image, over NBD and as a block device: they get errors, nothing hangs, and
 * the front, its writers, and another snapshot's reader are not disturbed.
 */
import { closeSync, openSync, readSync } from "node:fs";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { run, start } from "../lib/command.mjs";
import { ctl } from "../lib/ctl.mjs";
import { lateReadingDisk } from "../lib/device-mapper.mjs";
import { loopDisk, nullDisk } from "../lib/disks.mjs";
import { endFio, startLoad, VERIFIED_WRITES } from "../lib/fio.mjs";
import { IMAGE_GONE } from "../lib/kernel-log.mjs";
import { scenario } from "../lib/scenario.mjs";
import { attach, MIB, memberStatus, takeSnapshot } from "../lib/snapshots.mjs";
import { until } from "../lib/wait.mjs";

const test = scenario(import.meta.url);
const SIZE_BYTES = 64 * MIB;
/** Of each read of the original: no program reads all of the image before the destroy. */
const DELAY_MS = 250;
const BLOCK_BYTES = 4096;
/** The only part that is written to: no copy waits for a late read. */
const WRITTEN_BYTES = MIB;

const ENDLESS = ["--time_based", "--runtime=600", "--rw=randread", "--bs=4k", "--iodepth=8"];

const NOWHERE = ["--target-image-opts", "driver=null-co,size=64M"];

/** Each reads the image by its URI until it fails. */
const NBD_READERS = {
  nbdcopy: (uri) => [
    ...["nbdcopy", "--connections=2", "--requests=4", "--request-size=65536"],
    ...[uri, "null:"],
  ],
  "qemu-img": (uri) => ["qemu-img", "convert", "-m", "1", "-f", "raw", "-n", uri, ...NOWHERE],
  fio: (uri) => ["fio", "--name=n", "--ioengine=nbd", `--uri=${uri}`, "--size=64m", ...ENDLESS],
};

/** Each reads the block device until it fails. */
const DEVICE_READERS = {
  dd: (image) => ["dd", `if=${image}`, "of=/dev/null", "bs=64k", "iflag=direct"],
  cp: (image) => ["cp", image, "/dev/null"],
  nbdcopy: (image) => [
    ...["nbdcopy", "--synchronous", "--request-size=65536", "--allocated"],
    ...[image, "null:"],
  ],
  "qemu-img": (image) => ["qemu-img", "convert", "-f", "raw", "-n", image, ...NOWHERE],
  fio: (image) => [
    ...["fio", "--name=d", "--ioengine=io_uring", "--direct=1", `--filename=${image}`],
    ...["--readonly", ...ENDLESS],
  ],
};

async function uriOf(device) {
  const { stdout } = await ctl("snapshot_info", "--device", device, "--field", "nbd_uri");
  return stdout.trim();
}

/** A device whose image can be read only slowly, with a verifying load on its front. */
async function slowlyRead(t) {
  const below = await loopDisk(t, SIZE_BYTES);
  const device = await lateReadingDisk(t, below, SIZE_BYTES, DELAY_MS);
  const { front } = await attach(t, device);
  return { device, front };
}

/** Another device with a snapshot, whose image is compared by a program of others again and again. */
async function comparedMeanwhile(t) {
  const device = await nullDisk(t, { sizeMib: 16 });
  const { front } = await attach(t, device);
  await run(["dd", "if=/dev/urandom", `of=${front}`, "bs=1M", "count=16", "oflag=direct"]);
  const before = join(t.folder, t.name("before-"));
  t.defer(() => run(["rm", before]));
  await run(["cp", front, before]);
  await takeSnapshot(t, [device]);
  await run(["dd", "if=/dev/zero", `of=${front}`, "bs=1M", "count=16", "oflag=direct"]);
  const uri = await uriOf(device);
  let isOver = false;
  const comparing = (async () => {
    let rounds = 0;
    for (; !isOver; rounds++)
      await run(["qemu-img", "compare", "-f", "raw", "-F", "raw", before, uri]);
    return rounds;
  })();
  comparing.catch(() => undefined);
  return async () => {
    isOver = true;
    assert.ok((await comparing) > 0);
  };
}

async function imageReads(t, id, device) {
  return (await memberStatus(t, id, device)).image_io.reads;
}

/** Runs a reader; resolves when its requests arrive. */
async function startReader(t, words, { id, device }) {
  const before = await imageReads(t, id, device);
  const running = start(words);
  t.defer(() => {
    running.kill("SIGKILL");
    return running.end();
  });
  let ended = false;
  void running.end().then(() => {
    ended = true;
  });
  await until(`${words[0]} reads`, async () => ended || (await imageReads(t, id, device)) > before);
  if (ended) await running.succeed();
  return running;
}

/** @param readers what each name runs, on what `placeOf` has of the snapshot */
async function destroyBeneath(t, readers, placeOf, holdOpen) {
  const undisturbed = await comparedMeanwhile(t);
  const { device, front } = await slowlyRead(t);
  const load = { ...VERIFIED_WRITES, size: WRITTEN_BYTES, iodepth: 4 };
  const { id, images, destroy } = await takeSnapshot(t, [device]);
  const writing = await startLoad(t, front, load, { device });
  const place = await placeOf({ device, image: images[0] });
  const finish = holdOpen?.(place);
  const running = [];
  for (const words of Object.values(readers)) {
    running.push(await startReader(t, words(place), { id, device }));
  }
  await destroy();
  for (const [index, name] of Object.keys(readers).entries()) {
    const { status, signal, stderr, timedOut } = await running[index].end();
    assert.not.ok(timedOut, `${name} hangs`);
    assert.ok(status !== 0 && signal === null, `${name} ended with ${status ?? signal}: ${stderr}`);
  }
  assert.not.ok(finish?.(), "what was not read before can still be read");
  await endFio(writing);
  await undisturbed();
  // The device is as usable as before.
  const next = await takeSnapshot(t, [device]);
  const copy = join(t.folder, t.name("copy-"));
  t.defer(() => run(["rm", "-f", copy]));
  await run(["nbdcopy", await uriOf(device), copy]);
  // Many reads at a time.
  await run(["qemu-img", "compare", "-f", "raw", "-F", "raw", next.images[0], copy]);
  await next.destroy();
}

test("programs that read the image over NBD end with an error, and nothing else notices", (t) =>
  destroyBeneath(t, NBD_READERS, ({ device }) => uriOf(device)));

test("programs that read the image's block device end with an error, also one that only has it open", (t) => {
  t.expectKernelMessages(IMAGE_GONE);
  const holdOpen = (image) => {
    const held = openSync(image, "r");
    return () => {
      try {
        // Not read before: the kernel keeps pages for whoever has the device open. Since its size is 0 by then, this may
        // be the end of the file in place of an error.
        const at = SIZE_BYTES - BLOCK_BYTES;
        return readSync(held, Buffer.alloc(BLOCK_BYTES), 0, BLOCK_BYTES, at);
      } catch {
        return 0;
      } finally {
        closeSync(held);
      }
    };
  };
  return destroyBeneath(t, DEVICE_READERS, ({ image }) => image, holdOpen);
});

test.run();
