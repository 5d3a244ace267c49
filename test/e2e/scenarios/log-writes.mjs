/**
 * Power lost at flushes of the disk, replayed from dm-log-writes: a persistent tracker goes on and its
 * diff has all that was written, a persistent snapshot is there and its image is right, whatever else of
 * their last writes is missing.
 *
 * Original and medium lie on one logged disk, so that the log has the order of their writes to both:
 *
 * ```
 *   original    medium (ext4: state, stores)         fronts' users write, the daemon is killed
 *       └───┬──────┘
 *      dm-log-writes ──▶ log          for some flushes: replay up to there ──▶ copy
 *           │                         original and medium now lie on the copy, in another boot:
 *          disk                       start the daemon, compare
 * ```
 *
 * FLUSHES=N in the environment looks at so many flushes instead of 6; SEED chooses them.
 */
import { mkdirSync, rmdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { UblkControl } from "@blksnap/ublk";
import * as assert from "uvu/assert";
import { assertCovered, changedBlocks } from "../lib/changes.mjs";
import { run } from "../lib/command.mjs";
import { Daemon } from "../lib/daemon.mjs";
import {
  alignedBuffer,
  assertContent,
  DeviceFile,
  readDevice,
  writeDevice,
} from "../lib/device-file.mjs";
import { ramDisks } from "../lib/disks.mjs";
import { checkFileSystem, makeFileSystem } from "../lib/file-systems.mjs";
import { WriteLog } from "../lib/log-writes.mjs";
import { seededRandom } from "../lib/random.mjs";
import { note, progress, scenario } from "../lib/scenario.mjs";
import { MIB } from "../lib/snapshots.mjs";

const ORIGINAL_BYTES = 8 * MIB;
const MEDIUM_BYTES = 56 * MIB;
const DISK_BYTES = ORIGINAL_BYTES + MEDIUM_BYTES;
const LOG_BYTES = 512 * MIB;
const LIMIT_BYTES = 16 * MIB;
const BLOCK_BYTES = 4096;
const ROUNDS = 12;
const WRITES_PER_ROUND = 8;
const FLUSHES = Number(process.env.FLUSHES ?? 6);
const BOOT_ID = "/proc/sys/kernel/random/boot_id";

const test = scenario(import.meta.url, { daemon: false });

/** Original and medium, which can be moved to another disk as a whole. */
class Disks {
  original = "/dev/mapper/blksnap-e2e-original";
  medium = "/dev/mapper/blksnap-e2e-medium";

  constructor(t) {
    this.t = t;
    this.isThere = false;
    this.isMounted = false;
    this.mountPath = join(t.folder, "medium");
    mkdirSync(this.mountPath);
    t.defer(() => rmdirSync(this.mountPath));
    t.defer(() => this.leave());
    t.defer(() => this.unmount());
  }

  async lieOn(disk) {
    const original = `0 ${ORIGINAL_BYTES / 512} linear ${disk} 0`;
    const medium = `0 ${MEDIUM_BYTES / 512} linear ${disk} ${ORIGINAL_BYTES / 512}`;
    // By its uuid the original is known for the same after a power cut.
    const known = ["--uuid", "E2E-original", "--table", original];
    await run(["dmsetup", "create", "blksnap-e2e-original", ...known]);
    await run(["dmsetup", "create", "blksnap-e2e-medium", "--table", medium]);
    this.isThere = true;
  }

  async leave() {
    if (!this.isThere) return;
    this.isThere = false;
    for (const name of ["original", "medium"]) {
      await run(["dmsetup", "remove", "--retry", `blksnap-e2e-${name}`]);
    }
  }

  async mount() {
    await run(["mount", this.medium, this.mountPath]);
    this.isMounted = true;
  }

  async unmount() {
    if (!this.isMounted) return;
    this.isMounted = false;
    await run(["umount", this.mountPath]);
  }

  startDaemon(name) {
    return Daemon.startFor(this.t, {
      name,
      // Nobody but this test boots between two of its boots.
      args: ["--persistent-dir", join(this.mountPath, "state"), "--trust-reboots"],
    });
  }
}

/** Ends the daemon as a power cut does, and what the kernel would forget by it. */
async function cutPower(t) {
  t.daemon.kill("SIGKILL");
  await t.daemon.ended();
  const control = await UblkControl.open();
  const { trackers, images } = t.served;
  for (const path of [...images, ...trackers]) await control.deleteDevice(Number(path.slice(10)));
  control.close();
  rmSync("/run/blksnap", { recursive: true, force: true });
  rmSync("/dev/blksnap", { recursive: true, force: true });
}

/** Has the machine look like one that was booted anew. */
async function newBoot(t, number) {
  const path = join(t.folder, "boot-id");
  writeFileSync(path, `00000000-0000-4000-8000-${String(number).padStart(12, "0")}\n`);
  await run(["mount", "--bind", path, BOOT_ID]);
  let isOver = false;
  async function end() {
    if (isOver) return;
    isOver = true;
    await run(["umount", BOOT_ID]);
    rmSync(path);
  }
  t.defer(end);
  return end;
}

async function take(client, device, stores, persistent) {
  const { id } = await client.snapshotCreate({
    devices: [device],
    stores: [stores],
    limitBytes: LIMIT_BYTES,
    persistent,
  });
  const { images } = await client.snapshotTake(id);
  return { id, image: images[0].image };
}

/** What is done while the log is written. Answers what each mark promises. */
async function live(t, disks, log, random) {
  const content = random.bytes(ORIGINAL_BYTES);
  await makeFileSystem("ext4", disks.medium);
  await disks.mount();
  t.daemon = await disks.startDaemon("recorded");
  const { client } = t;
  const { front } = await client.attach(disks.original, { persistent: true });
  await writeDevice(t, front, content);
  const base = await take(client, disks.original, "memory:", false);
  await client.snapshotDestroy(base.id);
  const { generation_id: generation, changes_number: number } = await client.cbtInfo(
    disks.original,
  );
  await log.mark("base");
  const { id, image } = await take(client, disks.original, disks.mountPath, true);
  await log.mark("taken");
  t.served = { trackers: [front], images: [image] };

  const model = Buffer.from(content);
  const file = await DeviceFile.open(t, front);
  for (let round = 0; round < ROUNDS; round++) {
    await Promise.all(
      Array.from({ length: WRITES_PER_ROUND }, async () => {
        const buffer = random.fill(alignedBuffer(BLOCK_BYTES));
        await file.write(buffer, random.below(ORIGINAL_BYTES / BLOCK_BYTES) * BLOCK_BYTES);
      }),
    );
    if (random.once(3)) await file.sync();
  }
  await file.close();
  await cutPower(t);
  await disks.unmount();
  return { content, model, generation, number, id };
}

/** The disk as it was at a flush: everything that was promised before is kept. */
async function judge(t, disks, promised, { content, generation, number, id }) {
  const { client } = t;
  const { trackers, snapshots } = await client.status();
  assert.is(trackers.length, 1, "the tracker is attached again");
  const [{ front, cbt, persistence }] = trackers;
  t.served = { trackers: [front], images: [] };
  assert.equal(persistence, { state: "on", why: null });
  assert.is(cbt.generation_id, generation);
  const now = await readDevice(t, disks.original, ORIGINAL_BYTES);
  const snapshot = snapshots.find((one) => one.id === id);
  if (promised.includes("taken")) assert.ok(snapshot?.taken, "the snapshot is there");
  if (snapshot?.taken) {
    await assertContent(t, snapshot.devices[0].image, content);
    await client.snapshotDestroy(id);
  } else if (snapshot) await client.snapshotDestroy(id);
  const next = await take(client, disks.original, "memory:", false);
  const { ranges, block_size: blockBytes } = await client.diff(disks.original, number);
  const changed = changedBlocks(content, now, blockBytes);
  assertCovered(changed, ranges);
  await client.snapshotDestroy(next.id);
  await t.daemon.stop();
  await disks.unmount();
  await checkFileSystem("ext4", disks.medium);
  return changed.length;
}

/** Some flushes after the base was marked, the last among them, in their order. */
function chooseFlushes(entries, random) {
  const base = entries.findIndex(({ mark }) => mark === "base");
  assert.ok(base > 0, "the log has the mark");
  const flushes = entries.flatMap(({ isFlush }, index) => (isFlush && index > base ? [index] : []));
  assert.ok(flushes.length > FLUSHES, `only ${flushes.length} flushes`);
  const chosen = new Set([flushes.at(-1)]);
  while (chosen.size < FLUSHES) chosen.add(random.pick(flushes));
  return { chosen: [...chosen].sort((a, b) => a - b), known: flushes.length };
}

test(
  `power lost at ${FLUSHES} of the disk's flushes: tracker, diff and persistent snapshot are kept`,
  async (t) => {
    const seed = process.env.SEED ?? String(Date.now());
    note(`SEED=${seed}`);
    const random = seededRandom(seed);
    const [disk, logDevice, replayed, copy] = await ramDisks(t, 4, LOG_BYTES);
    const sectors = DISK_BYTES / 512;
    const log = await WriteLog.create(t, "blksnap-e2e-logged", { below: disk, logDevice, sectors });
    const disks = new Disks(t);
    await disks.lieOn(log.path);
    const recorded = await live(t, disks, log, random);
    await disks.leave();
    await log.end();
    const entries = log.entries();
    const { chosen, known } = chooseFlushes(entries, random);
    let at = 0;
    for (const [index, flush] of chosen.entries()) {
      log.replay(entries, at, flush + 1, replayed);
      at = flush + 1;
      const blocks = `count=${DISK_BYTES / MIB}`;
      await run(["dd", `if=${replayed}`, `of=${copy}`, "bs=1M", blocks, "conv=fsync"]);
      await disks.lieOn(copy);
      const endBoot = await newBoot(t, index + 1);
      await disks.mount();
      t.daemon = await disks.startDaemon(`boot-${index + 1}`);
      const promised = entries.slice(0, at).flatMap(({ mark }) => mark ?? []);
      const changed = await judge(t, disks, promised, recorded);
      await endBoot();
      await disks.leave();
      progress(`entry ${flush} of ${entries.length}: ${changed} blocks changed since the take`);
    }
    note(`${chosen.length} of ${known} flushes, ${entries.length} entries`);
  },
  { timeLimitMs: 1_200_000 },
);

test.run();
