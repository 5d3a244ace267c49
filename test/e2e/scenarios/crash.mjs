/**
 * Daemons killed and started by hand: the next one goes on with what it can have, and with the rest as
 * soon as it can. Killed again and again under load: torture.mjs.
 */
import { existsSync, rmSync } from "node:fs";
import { basename } from "node:path";
import { UblkControl } from "@blksnap/ublk";
import * as assert from "uvu/assert";
import { attempt, run } from "../lib/command.mjs";
import { Daemon } from "../lib/daemon.mjs";
import { imageFile, loopDisk, nullDisk, partition, ramDisks } from "../lib/disks.mjs";
import { Faults } from "../lib/faults.mjs";
import { MappedDisk } from "../lib/mapped-disk.mjs";
import { scenario } from "../lib/scenario.mjs";
import { MIB, storeFolder } from "../lib/snapshots.mjs";
import { until } from "../lib/wait.mjs";

const SIZE_MIB = 48;
const RECOVERY_LIMIT_MS = 120_000;
/** Longer than a daemon takes to start. */
const STUCK_MS = 15_000;

const test = scenario(import.meta.url, { daemon: false });

test(
  "a daemon started by hand goes on where a killed one was",
  async (t) => {
    const [device] = await ramDisks(t, 1, SIZE_MIB * MIB);
    const alone = { socketPath: "/run/blksnap/other.sock", name: "other" };
    const args = ["--state-dir", "/run/blksnap/other"];
    t.defer(() => rmSync("/run/blksnap/other", { recursive: true }));
    const first = await Daemon.start({ ...alone, args });
    const { front } = await first.client.attach(device);
    await run(["dd", "if=/dev/urandom", `of=${front}`, "bs=1M", "count=4", "oflag=direct"]);
    const { id } = await first.client.snapshotCreate({
      devices: [device],
      stores: ["memory:"],
      limitBytes: 64 * MIB,
      readOnlyImages: true,
    });
    const { images } = await first.client.snapshotTake(id);
    const isImage = () => existsSync(`/run/blksnap-udev/images/${basename(images[0].image)}`);
    assert.ok(isImage() && existsSync(`/run/blksnap-udev/fronts/${basename(front)}`));
    const before = await run(["sh", "-c", `md5sum < ${images[0].image}`]);
    await run(["dd", "if=/dev/urandom", `of=${front}`, "bs=1M", "count=4", "oflag=direct"]);
    const { snapshots: snapshotsBefore } = await first.client.status();
    first.kill("SIGKILL");
    await first.ended();
    // Asked while nobody serves: answered when somebody does.
    const reading = run(["sh", "-c", `md5sum < ${images[0].image}`]);
    const second = await Daemon.start({ ...alone, args });
    assert.is(await reading, before);
    assert.ok(isImage());
    assert.is((await run(["blockdev", "--getro", images[0].image])).trim(), "1");
    const written = await attempt(["dd", "if=/dev/zero", `of=${images[0].image}`, "count=8"]);
    assert.is.not(written.status, 0);
    assert.equal((await second.client.snapshotCollect())[0]?.id, id);
    const info = await second.client.cbtInfo(device);
    assert.is(info.changes_number, 1);
    assert.is(info.generation_reason, "first_attach");
    const { snapshots: snapshotsAfter } = await second.client.status();
    assert.is(snapshotsBefore[0].used_bytes, 4 * MIB);
    assert.is(snapshotsAfter[0].used_bytes, 4 * MIB);
    assert.is(snapshotsAfter[0].devices[0].chunks_used, 16);
    await second.client.snapshotDestroy(id);
    await second.client.detach(device);
    await second.stop();
  },
  { timeLimitMs: 600_000 },
);

test(
  "a daemon killed before it had made a front's partitions: the next one makes them",
  async (t) => {
    const device = await nullDisk(t, { sizeMib: SIZE_MIB });
    await partition(device, [8, 16]);
    const faults = new Faults(t);
    const first = await Daemon.startFor(t, { env: faults.environment });
    await faults.arm("attach.front-live");
    await first.client.attach(device).then(assert.unreachable, () => undefined);
    await faults.met();
    await first.ended();

    const next = await Daemon.startFor(t, { name: "next" });
    const { front } = (await next.client.status()).trackers[0];
    assert.ok(existsSync(`${front}p1`) && existsSync(`${front}p2`));
    await run(["cmp", `${front}p2`, `${device}p2`]);
    await next.client.detach(device);
    await next.stop();
  },
  { timeLimitMs: 600_000 },
);

test(
  "a front whose device is away when the daemon comes goes on when it is back",
  async (t) => {
    const [other] = await ramDisks(t, 1, SIZE_MIB * MIB);
    const file = imageFile(t, 16 * MIB);
    const device = await loopDisk(t, 16 * MIB, { file });
    const first = await Daemon.startFor(t);
    const { front } = await first.client.attach(device);
    await first.client.attach(other);
    await run(["dd", "if=/dev/urandom", `of=${front}`, "bs=1M", "count=16", "oflag=direct"]);
    const { id } = await first.client.snapshotCreate({
      devices: [device, other],
      stores: ["memory:"],
      limitBytes: 64 * MIB,
    });
    await first.client.snapshotTake(id);
    const before = await run(["sh", "-c", `md5sum < ${front}`]);
    first.kill("SIGKILL");
    await first.ended();
    const reading = run(["sh", "-c", `dd if=${front} bs=1M iflag=direct status=none | md5sum`]);
    await run(["losetup", "--detach", device]);

    const second = await Daemon.startFor(t, { name: "next" });
    const fronts = async () => {
      const { trackers } = await second.client.status();
      return trackers.map((tracker) => tracker.front);
    };
    assert.not.ok((await fronts()).includes(front), "it is served without its device");
    const { waiting } = await second.client.status();
    assert.equal(
      waiting.map((one) => [one.device, one.front]),
      [[device, front]],
    );
    assert.match(waiting[0].why, device);
    const error = await second.client.attach(device).catch((failure) => failure);
    assert.is(error.code, "DEVICE_BUSY");
    assert.match(error.message, front);
    // The image of the device is lost, and said so; the other one is right.
    const [{ devices }] = await second.client.snapshotCollect();
    assert.equal(devices, [other]);

    await run(["losetup", device, file]);
    await until(
      "the front goes on",
      async () => (await fronts()).includes(front),
      RECOVERY_LIMIT_MS,
    );
    assert.equal((await second.client.status()).waiting, []);
    assert.is(await reading, before);
    assert.is((await second.client.attach(device)).already_attached, true);
    await run(["dd", "if=/dev/zero", `of=${front}`, "bs=1M", "count=1", "oflag=direct"]);
    await second.client.snapshotDestroy(id);
    await second.client.detach(device);
    await second.client.detach(other);
    await run(["cmp", "-n", String(MIB), device, "/dev/zero"]);
    await second.stop();
  },
  { timeLimitMs: 600_000 },
);

const storesOfKind = {
  directory: (t) => storeFolder(t),
  file: (t) => imageFile(t, 8 * MIB),
};

for (const [kind, storeOf] of Object.entries(storesOfKind)) {
  test(
    `a snapshot in a ${kind} outlives a daemon that was killed with a write stuck on its original`,
    async (t) => {
      const [below] = await ramDisks(t, 1, SIZE_MIB * MIB);
      const disk = await MappedDisk.create(t, below, 8 * MIB);
      const first = await Daemon.startFor(t);
      const { front } = await first.client.attach(disk.path);
      await run(["dd", "if=/dev/urandom", `of=${front}`, "bs=1M", "count=8", "oflag=direct"]);
      const { id } = await first.client.snapshotCreate({
        devices: [disk.path],
        stores: [storeOf(t)],
        limitBytes: 8 * MIB,
      });
      const { images } = await first.client.snapshotTake(id);
      const before = await run(["sh", "-c", `md5sum < ${images[0].image}`]);
      // The dead daemon's request holds all that the daemon had open, locks with it, until it ends.
      await disk.delayWrites(STUCK_MS);
      const dd = `dd if=/dev/zero of=${front} bs=4k count=1 seek=512 oflag=direct`;
      const writing = run(["sh", "-c", dd]);
      // Its old data is saved; what it still waits for is the original.
      const saved = async () => (await first.client.status()).snapshots[0].devices[0].copied_bytes;
      await until("a write waits for the original", async () => (await saved()) > 0);
      first.kill("SIGKILL");
      await first.ended();
      const next = await Daemon.startFor(t, { name: "next" });
      await writing;
      const { trackers, snapshots } = await next.client.status();
      assert.equal(
        snapshots.map((snapshot) => snapshot.id),
        [id],
      );
      assert.is(trackers[0].error_code, 0);
      const { image } = snapshots[0].devices[0];
      assert.is(await run(["sh", "-c", `md5sum < ${image}`]), before);
      await disk.heal();
      await next.client.snapshotDestroy(id);
      await next.client.detach(disk.path);
      await next.stop();
    },
    { timeLimitMs: 600_000 },
  );
}

test(
  "a daemon with another state directory leaves alone what waits for its own",
  async (t) => {
    const [device, others] = await ramDisks(t, 2, SIZE_MIB * MIB);
    const first = await Daemon.startFor(t);
    const { front } = await first.client.attach(device);
    await run(["dd", "if=/dev/urandom", `of=${front}`, "bs=1M", "count=4", "oflag=direct"]);
    const { id } = await first.client.snapshotCreate({
      devices: [device],
      stores: ["memory:"],
      limitBytes: 64 * MIB,
    });
    const { images } = await first.client.snapshotTake(id);
    const before = await run(["sh", "-c", `md5sum < ${images[0].image}`]);
    first.kill("SIGKILL");
    await first.ended();
    t.defer(() => rmSync("/run/blksnap/other", { recursive: true, force: true }));
    const other = await Daemon.startFor(t, {
      socketPath: "/run/blksnap/other.sock",
      name: "other",
      args: ["--state-dir", "/run/blksnap/other", "--persistent-dir", "/run/blksnap/other/kept"],
    });
    const { front: othersFront } = await other.client.attach(others);
    assert.not.ok([front, images[0].image].includes(othersFront));
    await other.client.detach(others);
    await other.stop();

    const next = await Daemon.startFor(t, { name: "next" });
    const { trackers, snapshots } = await next.client.status();
    assert.is(trackers[0].front, front);
    assert.is(snapshots[0].devices[0].image, images[0].image);
    assert.is(await run(["sh", "-c", `md5sum < ${images[0].image}`]), before);
    await next.client.snapshotDestroy(id);
    await next.client.detach(device);
    await next.stop();
  },
  { timeLimitMs: 600_000 },
);

test(
  "a front that another program has deleted is not gone on with under the number that another one got",
  async (t) => {
    const [gone, other] = await ramDisks(t, 2, SIZE_MIB * MIB);
    const first = await Daemon.startFor(t);
    const { front } = await first.client.attach(gone);
    await run(["dd", "if=/dev/urandom", `of=${front}`, "bs=1M", "count=4", "oflag=direct"]);
    const control = await UblkControl.open();
    await control.deleteDevice(Number(front.slice("/dev/ublkb".length)));
    control.close();
    const isFree = () => !existsSync(front.replace("/dev/ublkb", "/sys/class/ublk-char/ublkc"));
    await until("its number is free", isFree, RECOVERY_LIMIT_MS);
    assert.is((await first.client.attach(other)).front, front);
    await run(["dd", "if=/dev/urandom", `of=${front}`, "bs=1M", "count=4", "oflag=direct"]);
    first.kill("SIGKILL");
    await first.ended();
    const next = await Daemon.startFor(t, { name: "next" });
    const { trackers, waiting } = await next.client.status();
    assert.equal(
      trackers.map((tracker) => [tracker.device, tracker.front]),
      [[other, front]],
    );
    assert.equal(waiting, []);
    await run(["cmp", "-n", String(4 * MIB), front, other]);
    await next.client.detach(other);
    await next.stop();
  },
  { timeLimitMs: 600_000 },
);

test.run();
