/** Originals and stores are identified by themselves: their names may change while no daemon runs. */
import { renameSync, rmSync, symlinkSync, unlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { run } from "../lib/command.mjs";
import { Daemon } from "../lib/daemon.mjs";
import { imageFile, loopDisk, ramDisks } from "../lib/disks.mjs";
import { scenario } from "../lib/scenario.mjs";
import { MIB } from "../lib/snapshots.mjs";
import { until } from "../lib/wait.mjs";

const RECOVERY_LIMIT_MS = 300_000;

const test = scenario(import.meta.url, { daemon: false, sampledIn: 2 });

/** Kills the daemon, does something, and starts the next one. */
async function across(t, first, change) {
  first.kill("SIGKILL");
  await first.ended();
  await change();
  return Daemon.startFor(t, { name: "next" });
}

/** Fails where no daemon serves the front: then nothing answers. */
async function assertServed({ client }, front, device) {
  assert.equal((await client.status()).waiting, []);
  await run(["cmp", "-n", String(MIB), front, device]);
}

test(
  "a front continues when its volume was renamed, or its link now leads to the front",
  async (t) => {
    const [disk, other] = [await loopDisk(t, 8 * MIB), await loopDisk(t, 8 * MIB)];
    const name = t.name("blksnap-e2e-");
    const now = `${name}-now`;
    await run(["dmsetup", "create", name], { input: `0 ${(8 * MIB) / 512} linear ${disk} 0` });
    t.defer(() => run(["dmsetup", "remove", "--retry", now]));
    const link = join(t.folder, t.name("by-uuid-"));
    symlinkSync(other, link);
    t.defer(() => unlinkSync(link));

    const first = await Daemon.startFor(t);
    const { front } = await first.client.attach(`/dev/mapper/${name}`);
    const { front: linked } = await first.client.attach(link);
    for (const one of [front, linked]) {
      await run(["dd", "if=/dev/urandom", `of=${one}`, "bs=1M", "count=4", "oflag=direct"]);
    }
    const { id } = await first.client.snapshotCreate({
      devices: [front, linked],
      stores: ["memory:"],
      limitBytes: 64 * MIB,
    });
    const { images } = await first.client.snapshotTake(id);
    const imageSums = () => Promise.all(images.map(({ image }) => run(["md5sum", image])));
    const before = await imageSums();
    // As udev does: what mounts by the link finds the front.
    unlinkSync(link);
    symlinkSync(linked, link);
    const next = await across(t, first, async () => {
      await run(["dmsetup", "rename", name, now]);
      rmSync(`/dev/mapper/${name}`, { force: true });
    });
    await assertServed(next, front, `/dev/mapper/${now}`);
    await assertServed(next, linked, other);
    assert.equal(await imageSums(), before);
    for (const path of [`/dev/mapper/${now}`, `/dev/mapper/${name}`, link]) {
      assert.is((await next.client.attach(path)).already_attached, true, path);
      const { generation_reason: reason } = await next.client.cbtInfo(path);
      assert.is(reason, "first_attach", path);
    }
    await next.client.snapshotDestroy(id);
    await next.client.detach(link);
    await next.client.detach(`/dev/mapper/${now}`);
    await next.stop();
  },
  { timeLimitMs: 600_000 },
);

test(
  "a front of an image file continues when the file was renamed, and never on another file",
  async (t) => {
    const file = imageFile(t, 8 * MIB);
    const first = await Daemon.startFor(t);
    const { front } = await first.client.attach(file);
    await run(["dd", "if=/dev/urandom", `of=${front}`, "bs=1M", "count=4", "oflag=direct"]);
    const next = await across(t, first, async () => {
      renameSync(file, `${file}-away`);
      writeFileSync(file, Buffer.alloc(8 * MIB));
    });
    await assertServed(next, front, `${file}-away`);
    await next.client.detach(front);
    await next.stop();
    renameSync(`${file}-away`, file);
  },
  { timeLimitMs: 600_000 },
);

test(
  "another device with the number of a missing one is not mistaken for it",
  async (t) => {
    const [file, otherFile] = [imageFile(t, 8 * MIB), imageFile(t, 8 * MIB)];
    const device = await loopDisk(t, 8 * MIB, { file });
    const first = await Daemon.startFor(t);
    const { front } = await first.client.attach(device);
    await run(["dd", "if=/dev/urandom", `of=${front}`, "bs=1M", "count=4", "oflag=direct"]);
    const next = await across(t, first, async () => {
      await run(["losetup", "--detach", device]);
      await run(["losetup", device, otherFile]);
    });
    const { waiting } = await next.client.status();
    assert.equal(
      waiting.map((one) => one.front),
      [front],
    );
    assert.match(waiting[0].why, /is another device now/);
    await run(["losetup", "--detach", device]);
    await run(["losetup", device, file]);
    await until(
      "the front continues",
      async () => (await next.client.status()).waiting.length === 0,
      RECOVERY_LIMIT_MS,
    );
    await assertServed(next, front, file);
    // It was missing, and any program may have written to it.
    assert.is((await next.client.cbtInfo(device)).generation_reason, "tracking_broken");
    await next.client.detach(device);
    await next.stop();
    await run(["cmp", otherFile, "/dev/zero", "-n", String(8 * MIB)]);
  },
  { timeLimitMs: 600_000 },
);

test(
  "a snapshot continues with its store, even if another file has its name now",
  async (t) => {
    const [device] = await ramDisks(t, 1, 8 * MIB);
    const [disk, other] = [await loopDisk(t, 16 * MIB), await loopDisk(t, 16 * MIB)];
    const link = join(t.folder, t.name("store-"));
    symlinkSync(disk, link);
    t.defer(() => unlinkSync(link));
    const first = await Daemon.startFor(t);
    const { front } = await first.client.attach(device);
    await run(["dd", "if=/dev/urandom", `of=${front}`, "bs=1M", "count=8", "oflag=direct"]);
    const { id } = await first.client.snapshotCreate({
      devices: [device],
      stores: [link],
      limitBytes: 16 * MIB,
    });
    const { images } = await first.client.snapshotTake(id);
    const before = await run(["md5sum", images[0].image]);
    const overwrite = (skip) =>
      run([
        "dd",
        "if=/dev/zero",
        `of=${front}`,
        "bs=1M",
        "count=4",
        `seek=${skip}`,
        "oflag=direct",
      ]);
    await overwrite(0);
    const next = await across(t, first, () => {
      unlinkSync(link);
      symlinkSync(other, link);
    });
    await overwrite(4);
    assert.is(await run(["md5sum", images[0].image]), before);
    const [{ devices }] = (await next.client.status()).snapshots;
    assert.is(devices[0].lost_bytes, 0);
    await next.client.snapshotDestroy(id);
    await next.client.detach(device);
    await next.stop();
    await run(["cmp", other, "/dev/zero", "-n", String(16 * MIB)]);
  },
  { timeLimitMs: 600_000 },
);

test.run();
