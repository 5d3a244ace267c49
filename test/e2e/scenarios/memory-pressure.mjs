/**
 * The machine nearly out of memory, with dirty pages of a file system on the front: what the daemon
 * needs to write them back must not wait for them to be written back.
 */
import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import * as assert from "uvu/assert";
import { run, start } from "../lib/command.mjs";
import { ramDisks } from "../lib/disks.mjs";
import { checkFileSystem, makeFileSystem, mount } from "../lib/file-systems.mjs";
import { note, scenario } from "../lib/scenario.mjs";
import { attach, MIB, takeSnapshot } from "../lib/snapshots.mjs";

const test = scenario(import.meta.url);
const DISK_MIB = 256;
const FILES = 3;
const FILE_MIB = 64;
/** Of all memory, with what the test itself dirties. */
const USED_SHARE = 0.9;
const DIRTY_LEAST_MIB = 16;
const SAMPLE_MS = 100;
const TEST_LIMIT_MS = 900_000;

function memoryKib(name) {
  return Number(
    new RegExp(`^${name}: +(\\d+) kB`, "m").exec(readFileSync("/proc/meminfo", "utf8"))[1],
  );
}

/** Takes memory that can be neither dropped nor swapped, until so much of all of it is in use. */
async function takeMemory(t, share) {
  const folder = join(t.folder, t.name("memory-"));
  mkdirSync(folder);
  t.defer(() => rmdirSync(folder));
  await run(["mount", "-t", "tmpfs", "-o", "size=99%", "none", folder]);
  t.defer(() => run(["umount", folder]));
  const spareKib = memoryKib("MemTotal") * (1 - share);
  const takeKib = Math.floor(memoryKib("MemAvailable") - spareKib);
  assert.ok(takeKib > 0, "so much is in use already");
  await run(["fallocate", "-l", `${takeKib}KiB`, join(folder, "taken")], { timeLimitMs: 300_000 });
  const used = 1 - memoryKib("MemAvailable") / memoryKib("MemTotal");
  note(`${Math.round(used * 100)} % of ${Math.round(memoryKib("MemTotal") / 1024)} MiB in use`);
}

/** Lets nearly all free memory become dirty before anything is written back. */
function allowDirt(t) {
  for (const [name, value] of [
    ["dirty_ratio", "90"],
    ["dirty_background_ratio", "80"],
    ["dirty_writeback_centisecs", "0"],
    ["dirty_expire_centisecs", "360000"],
  ]) {
    const path = `/proc/sys/vm/${name}`;
    const before = readFileSync(path, "utf8");
    writeFileSync(path, value);
    t.defer(() => writeFileSync(path, before));
  }
}

/** Most that was dirty or under writeback while the work was done, in MiB. */
async function largestDirt(work) {
  let isDone = false;
  const done = work.finally(() => {
    isDone = true;
  });
  let largestKib = 0;
  while (!isDone) {
    largestKib = Math.max(largestKib, memoryKib("Dirty") + memoryKib("Writeback"));
    await Promise.race([done, sleep(SAMPLE_MS)]);
  }
  await done;
  // Nothing has been written back by itself.
  largestKib = Math.max(largestKib, memoryKib("Dirty") + memoryKib("Writeback"));
  return Math.round(largestKib / 1024);
}

test(
  "dirty pages on the front at 90 % of memory: all are written, and the image stays right",
  async (t) => {
    const [device, storeDisk] = await ramDisks(t, 2, DISK_MIB * MIB);
    // A RAM disk takes its memory at the first write: now, and not when there is none.
    for (const disk of [device, storeDisk]) {
      await run(["dd", "if=/dev/zero", `of=${disk}`, "bs=1M", `count=${DISK_MIB}`, "oflag=direct"]);
    }
    const { front, detach } = await attach(t, device);
    await makeFileSystem("ext4", front);
    const files = await mount(t, front);
    const { images, destroy } = await takeSnapshot(t, [device], {
      stores: [storeDisk],
      limitBytes: DISK_MIB * MIB,
    });
    const before = await run(["md5sum", images[0]]);
    allowDirt(t);
    await takeMemory(t, USED_SHARE);
    const limits = { timeLimitMs: TEST_LIMIT_MS };
    const writers = Array.from({ length: FILES }, (_, index) =>
      start(
        [
          "sh",
          "-c",
          `openssl enc -aes-128-ctr -pass pass:${index} -nosalt </dev/zero 2>/dev/null |
            dd of=${files.path}/file-${index} bs=1M count=${FILE_MIB} iflag=fullblock status=none`,
        ],
        limits,
      ),
    );
    const dirtyMib = await largestDirt(Promise.all(writers.map((writer) => writer.succeed())));
    note(`up to ${dirtyMib} MiB dirty while they were written`);
    assert.ok(dirtyMib >= DIRTY_LEAST_MIB, "hardly anything was dirty");
    // The control API answers meanwhile.
    const syncing = start(["sync", "--file-system", files.path], limits);
    assert.is((await t.client.status()).trackers.length, 1);
    await syncing.succeed();

    writeFileSync("/proc/sys/vm/drop_caches", "3");
    for (let index = 0; index < FILES; index++) {
      const path = `${files.path}/file-${index}`;
      const expected = `openssl enc -aes-128-ctr -pass pass:${index} -nosalt </dev/zero 2>/dev/null |
        head -c ${FILE_MIB * MIB} | cmp - ${path}`;
      await run(["sh", "-c", expected], limits);
    }
    assert.is(await run(["md5sum", images[0]], limits), before);
    assert.not.match(await run(["dmesg"]), /Out of memory|oom-kill/);
    assert.ok(existsSync(images[0]));
    await files.unmount();
    await destroy();
    await checkFileSystem("ext4", front);
    await detach();
  },
  { timeLimitMs: TEST_LIMIT_MS },
);

test.run();
