/** If a reactor dies, the next daemon serves its pending requests. */
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { run } from "../lib/command.mjs";
import { Daemon } from "../lib/daemon.mjs";
import { ramDisks } from "../lib/disks.mjs";
import { MappedDisk } from "../lib/mapped-disk.mjs";
import { scenario } from "../lib/scenario.mjs";
import { MIB, storeFolder } from "../lib/snapshots.mjs";
import { until } from "../lib/wait.mjs";

const HOOK = new URL("../lib/end-reactors.mjs", import.meta.url).href;
const SIZE_BYTES = 16 * MIB;
/** The daemon's, for a lost reactor. */
const REACTOR_LOST = 70;

const test = scenario(import.meta.url, { daemon: false });

test(
  "the daemon ends with its reactor, also when its main thread gets no turn, and the next one continues",
  async (t) => {
    const [below] = await ramDisks(t, 1, SIZE_BYTES);
    const disk = await MappedDisk.create(t, below, SIZE_BYTES);
    const flag = join(t.folder, "end");
    const env = { NODE_OPTIONS: `--import ${HOOK}`, E2E_END_REACTORS: flag };
    const first = await Daemon.startFor(t, { env });
    t.defer(() => {
      for (const path of [flag, `${flag}.met`]) rmSync(path, { force: true });
    });
    const { front } = await first.client.attach(disk.path);
    await run(["dd", "if=/dev/urandom", `of=${front}`, "bs=1M", "count=16", "oflag=direct"]);
    const { id } = await first.client.snapshotCreate({
      devices: [disk.path],
      stores: [storeFolder(t)],
      limitBytes: 64 * MIB,
    });
    const { images } = await first.client.snapshotTake(id);
    const before = await run(["sh", "-c", `md5sum < ${images[0].image}`]);
    await disk.keepWrites();
    const dd = `dd if=/dev/zero of=${front} bs=4k count=1 oflag=direct`;
    const writing = run(["sh", "-c", dd]);
    const saved = async () => (await first.client.status()).snapshots[0].devices[0].copied_bytes;
    await until("a write is in the reactor's hands", async () => (await saved()) > 0);

    writeFileSync(flag, "");
    const { status } = await first.ended();
    assert.is(status, REACTOR_LOST);
    rmSync(flag);
    await disk.heal();
    const next = await Daemon.startFor(t, { name: "next" });
    await writing;
    assert.is((await next.client.status()).trackers[0].front, front);
    assert.is(await run(["sh", "-c", `md5sum < ${images[0].image}`]), before);
    await run(["cmp", "-n", "4096", front, "/dev/zero"]);
    await next.client.snapshotDestroy(id);
    await next.client.detach(disk.path);
    await next.stop();
  },
  { timeLimitMs: 600_000 },
);

test.run();
