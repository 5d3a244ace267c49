/**
 * After a daemon was killed, what its fronts were on is away, waits for another daemon's directory, or has lost its
 * number to a stranger: the next daemon resumes what is its own, and the rest as soon as it can.
 */
import { rmSync } from "node:fs";
import { UblkControl } from "@blksnap/ublk";
import * as assert from "uvu/assert";
import { run } from "../lib/command.mjs";
import { Daemon } from "../lib/daemon.mjs";
import { imageFile, loopDisk, ramDisks } from "../lib/disks.mjs";
import { scenario } from "../lib/scenario.mjs";
import { MIB } from "../lib/snapshots.mjs";
import { until } from "../lib/wait.mjs";

const SIZE_MIB = 48;
const RECOVERY_LIMIT_MS = 300_000;

const test = scenario(import.meta.url, { daemon: false, sampledIn: 3 });

test(
  "a front whose device is missing when the daemon starts continues when the device is back",
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
    // The image of the device is lost, and reported so; the other one is right.
    const [{ devices }] = await second.client.snapshotCollect();
    assert.equal(devices, [other]);

    await run(["losetup", device, file]);
    await until(
      "the front continues",
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

test(
  "a daemon with another state directory leaves waiting devices of others alone",
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
  "a deleted front is not resumed under a number that another device got",
  async (t) => {
    const [gone, other] = await ramDisks(t, 2, SIZE_MIB * MIB);
    const first = await Daemon.startFor(t);
    const { front } = await first.client.attach(gone);
    await run(["dd", "if=/dev/urandom", `of=${front}`, "bs=1M", "count=4", "oflag=direct"]);
    const control = await UblkControl.open();
    await control.deleteDevice(Number(front.slice("/dev/ublkb".length)));
    control.close();
    // The kernel gives the number back a while after the last descriptor was closed.
    const getsNumber = async () => {
      const attached = await first.client.attach(other);
      if (attached.front === front) return true;
      await first.client.detach(other);
      return false;
    };
    await until("the other one gets its number", getsNumber, RECOVERY_LIMIT_MS);
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
