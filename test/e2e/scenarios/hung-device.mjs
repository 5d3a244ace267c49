/**
 * A device whose detach hangs: its disk is suspended, and does not answer the flush that comes first. The client gets an
 * answer, others are used as ever, and the daemon can be ended.
 */
import { existsSync } from "node:fs";
import * as assert from "uvu/assert";
import { run } from "../lib/command.mjs";
import { Daemon } from "../lib/daemon.mjs";
import { alignedBuffer, DeviceFile } from "../lib/device-file.mjs";
import { loopDisk } from "../lib/disks.mjs";
import { MappedDisk } from "../lib/mapped-disk.mjs";
import { scenario } from "../lib/scenario.mjs";
import { MIB, takeSnapshot } from "../lib/snapshots.mjs";
import { until } from "../lib/wait.mjs";

const test = scenario(import.meta.url, { daemon: false, sampledIn: 2 });
const SIZE_BYTES = 16 * MIB;
const PIECE = Buffer.alloc(4096, 7);
/** Of the end: no operation of a client may be waited for longer, and then nothing makes progress. */
const END_LIMIT_MS = 300_000;
const LEFT_STATUS = 3;

test(
  "a hung detach delays neither status, nor other devices and snapshots, nor the daemon's end",
  async (t) => {
    const disk = await MappedDisk.create(t, await loopDisk(t, SIZE_BYTES), SIZE_BYTES);
    const other = await loopDisk(t, SIZE_BYTES);
    const daemon = await Daemon.startFor(t);
    const { front } = await t.client.attach(disk.path);
    await disk.hang();
    t.defer(() => disk.resume());
    const detach = () =>
      t.client.detach(disk.path).then(
        () => "",
        ({ code }) => code,
      );
    const first = detach();
    await until("it is being detached", () =>
      run(["pgrep", "-x", "apart:fsync"], { status: [0, 1] }).then((found) => found !== ""),
    );
    const { trackers } = await t.client.status();
    assert.equal(
      trackers.map(({ device }) => device),
      [disk.path],
    );
    const { images, destroy } = await takeSnapshot(t, [other]);
    const { front: its } = (await t.client.status()).trackers.find(
      ({ device }) => device === other,
    );
    const file = await DeviceFile.open(t, its);
    const piece = alignedBuffer(PIECE.length);
    PIECE.copy(piece);
    await file.write(piece, 0);
    await file.close();
    assert.ok(existsSync(images[0]));
    await destroy();
    await t.client.detach(other);
    assert.is(await first, "NO_ANSWER");
    const second = detach();

    // A client that waits for the end has less patience than the daemon.
    daemon.kill("SIGTERM");
    const left = `the detach of ${disk.path} from ${front} did not end`;
    await until("the daemon has given it up", () => daemon.log().includes(left), END_LIMIT_MS);
    // The kernel keeps a process for as long as one of its threads waits for the disk.
    await disk.resume();
    await until("the daemon has ended", () => !daemon.alive, END_LIMIT_MS);
    assert.is((await daemon.ended()).status, LEFT_STATUS);
    await second;

    const next = await Daemon.startFor(t, { name: "next" });
    await next.client.detach(disk.path);
    await next.stop();
  },
  { timeLimitMs: 900_000 },
);

test.run();
