/**
 * A daemon that dies while every request slot of a front is inside of it. Up to Linux 6.14 nothing
 * tells the kernel at once: it has no command of the dead process left that could end.
 */
import { release } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { UblkControl, UblkState } from "@blksnap/ublk";
import * as assert from "uvu/assert";
import { Daemon } from "../lib/daemon.mjs";
import { alignedBuffer, assertContent, DeviceFile, writeDevice } from "../lib/device-file.mjs";
import { ramDisks } from "../lib/disks.mjs";
import { requestsInFlight } from "../lib/in-flight.mjs";
import { MappedDisk } from "../lib/mapped-disk.mjs";
import { seededRandom } from "../lib/random.mjs";
import { note, scenario } from "../lib/scenario.mjs";
import { MIB } from "../lib/snapshots.mjs";
import { successor } from "../lib/successor.mjs";
import { until } from "../lib/wait.mjs";

const test = scenario(import.meta.url, { daemon: false, sampledIn: 2 });
const SIZE_BYTES = 2 * MIB;
const PIECE_BYTES = 64 * 1024;
/** Apart, so that the block layer makes no one request of two. */
const STRIDE_BYTES = 2 * PIECE_BYTES;
const DEPTH = 4;
/** So long they stay inside after its death; nothing depends on it. */
const HELD_MS = 2_000;
const NOTICE_LIMIT_MS = 300_000;
const TEST_LIMIT_MS = 900_000;

/** Writes one piece per number; each takes a slot and keeps it until the disk is healed. */
async function writePieces(t, front, model, numbers) {
  const file = await DeviceFile.open(t, front);
  const random = seededRandom(numbers.join());
  return numbers.map(async (number) => {
    const buffer = random.fill(alignedBuffer(PIECE_BYTES));
    await file.write(buffer, number * STRIDE_BYTES);
    buffer.copy(model, number * STRIDE_BYTES);
  });
}

/** How long the kernel takes, from now on, to know of the daemon's death. */
async function noticeMs(control, front, pid) {
  const id = Number(/\d+$/.exec(front)[0]);
  const killedMs = performance.now();
  await until(
    "the kernel has noticed",
    async () => {
      const { state, serverPid } = await control.deviceInfo(id);
      return state !== UblkState.LIVE || serverPid !== pid;
    },
    NOTICE_LIMIT_MS,
  );
  return Math.round(performance.now() - killedMs);
}

/** Kills with so many of the slots inside the daemon; answers after how long the kernel knew. */
async function killWithInside(t, { device, disk, control, front, model }, inside) {
  const { daemon } = await t.client.status();
  const numbers = Array.from({ length: inside }, (_, index) => index);
  // They end when the disk is healed, which is done when the daemon is dead.
  await disk.keepWrites();
  const writing = Promise.all(await writePieces(t, front, model, numbers));
  await until("the requests are inside", () => requestsInFlight(front) === inside);
  process.kill(daemon.pid, "SIGKILL");
  const [noticedMs] = await Promise.all([
    noticeMs(control, front, daemon.pid),
    sleep(HELD_MS).then(() => disk.heal()),
  ]);
  await successor(t, daemon.pid);
  await writing;
  await assertContent(t, front, model);
  assert.is((await t.client.status()).trackers[0].device, device);
  return noticedMs;
}

test(
  "a daemon that dies with all slots inside: its users wait until the kernel notices, and no longer",
  async (t) => {
    const [below] = await ramDisks(t, 1, SIZE_BYTES);
    const disk = await MappedDisk.create(t, below, SIZE_BYTES);
    t.daemon = await Daemon.start({ args: ["--supervise", "--front-depth", String(DEPTH)] });
    const device = disk.path;
    const { front } = await t.client.attach(device);
    const model = seededRandom("late").bytes(SIZE_BYTES);
    await writeDevice(t, front, model);
    const control = await UblkControl.open();
    t.defer(() => control.close());
    const setting = { device, disk, control, front, model };
    for (const inside of [DEPTH - 1, DEPTH]) {
      const noticedMs = await killWithInside(t, setting, inside);
      const slots = `${inside} of ${DEPTH} slots inside`;
      note(`Linux ${release()}: with ${slots} the death was noticed after ${noticedMs} ms`);
    }
    await t.client.detach(device);
    await t.daemon.stop();
  },
  { timeLimitMs: TEST_LIMIT_MS },
);

test.run();
