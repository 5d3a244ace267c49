/**
 * Daemons killed and started by hand: the next one continues where they were. What is away or others' by then:
 * crash-strangers.mjs; killed again and again under load: torture.mjs.
 */
import { existsSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import { basename } from "node:path";
import * as assert from "uvu/assert";
import { attempt, run } from "../lib/command.mjs";
import { Daemon } from "../lib/daemon.mjs";
import { nullDisk, partition, ramDisks } from "../lib/disks.mjs";
import { Faults } from "../lib/faults.mjs";
import { note, scenario } from "../lib/scenario.mjs";
import { MIB } from "../lib/snapshots.mjs";

const SIZE_MIB = 48;
const OTHER_STATE = "/run/blksnap/other";

const test = scenario(import.meta.url, { daemon: false });

/** A state directory whose files are in huge pages, where the kernel has them: memory of maps is registered. */
async function hugeState(t) {
  mkdirSync(OTHER_STATE, { recursive: true });
  t.defer(() => rmSync(OTHER_STATE, { recursive: true }));
  const options = ["huge=always,mode=700", "mode=700"];
  for (const option of options) {
    const mounted = await attempt(["mount", "-t", "tmpfs", "-o", option, "tmpfs", OTHER_STATE]);
    if (mounted.status !== 0) continue;
    t.defer(() => run(["umount", OTHER_STATE]));
    note(`state in a tmpfs with ${option}`);
    return;
  }
  assert.unreachable("no tmpfs could be mounted");
}

test.quick(
  "a daemon started by hand continues where a killed one stopped",
  async (t) => {
    const [device] = await ramDisks(t, 1, SIZE_MIB * MIB);
    const alone = { socketPath: "/run/blksnap/other.sock", name: "other" };
    await hugeState(t);
    const args = ["--state-dir", OTHER_STATE];
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
    await run(["dd", "if=/dev/urandom", `of=${front}`, "bs=1M", "count=3", "oflag=direct"]);
    const short = ["bs=4k", "count=256", "seek=768"];
    await run(["dd", "if=/dev/urandom", `of=${front}`, ...short, "oflag=direct"]);
    note(
      /^ShmemHugePages:.*/m.exec(readFileSync("/proc/meminfo", "latin1"))?.[0] ?? "no huge pages",
    );
    const { snapshots: snapshotsBefore } = await first.client.status();
    first.kill("SIGKILL");
    await first.ended();
    // Sent while no daemon serves: answered when one does.
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
  "a daemon is killed before it has added a front's partitions: the next one adds them",
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

test.run();
