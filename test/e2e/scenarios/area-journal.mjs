/** The journal of a persistent snapshot's area, while more is saved than its log holds. */
import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { run } from "../lib/command.mjs";
import { loopDisk } from "../lib/disks.mjs";
import { assertHeld, assertNothingKept, fill, heldSnapshot, waitForNext } from "../lib/kept.mjs";
import { medium } from "../lib/medium.mjs";
import { scenario } from "../lib/scenario.mjs";
import { MIB } from "../lib/snapshots.mjs";
import { until } from "../lib/wait.mjs";

const SIZE_MIB = 24;
/** All of the writing, which pauses for each commit. */
const WRITING_LIMIT_MS = 800_000;
/** Each test starts a few daemons. */
const LIMIT = { timeLimitMs: 1_800_000 };

const test = scenario(import.meta.url, { daemon: false });

/**
 * The journals of diff areas that are on the medium. One that is made anew bears another name
 * until it takes the old one's place: what has gone since the names were read is left out.
 */
function areaJournals({ path }) {
  const state = join(path, "state");
  return readdirSync(state)
    .filter((name) => name.startsWith("area-"))
    .flatMap((name) => {
      const stat = statSync(join(state, name), { throwIfNoEntry: false });
      return stat === undefined ? [] : [{ name, ...stat }];
    });
}

/** Writes each 4 KiB once, in no order. */
function scatter(front) {
  const how = [
    "--rw=randwrite",
    "--bs=4k",
    "--ioengine=psync",
    "--direct=1",
    `--size=${SIZE_MIB}m`,
  ];
  return run(["fio", "--name=scatter", `--filename=${front}`, ...how], {
    timeLimitMs: LIMIT.timeLimitMs,
  });
}

test(
  "the journal of a diff area is rewritten while blocks are saved, and is complete",
  async (t) => {
    const disk = await medium(t);
    const device = await loopDisk(t, SIZE_MIB * MIB);
    t.daemon = await disk.start();
    t.defer(() => t.daemon.stop());
    const { front } = await t.client.attach(device, { persistent: true });
    await fill(front, 0, SIZE_MIB * 1024);
    const held = await heldSnapshot(t, disk, device);
    const seen = new Set();
    // One commit for each 4 KiB, some six thousand: what comes in sequence is copied ahead, 64 at a time.
    const writing = scatter(front);
    const isMadeAnew = () => {
      for (const { name, ino, birthtimeMs } of areaJournals(disk)) {
        if (name.endsWith(".journal")) seen.add(`${ino} ${birthtimeMs}`);
      }
      return seen.size > 2;
    };
    await until("the journal was rewritten twice", isMadeAnew, WRITING_LIMIT_MS);
    const { pid } = t.daemon;
    t.daemon.kill("SIGKILL");
    await t.daemon.ended();
    t.daemon = await disk.start();
    await waitForNext(t, pid);
    await writing;
    const [journal] = areaJournals(disk).filter(({ name }) => name.endsWith(".journal"));
    assert.ok(journal.size <= 3 * MIB, `${journal.size} bytes`);
    await assertHeld(t, held);
    await t.daemon.stop();
    assert.equal(
      areaJournals(disk).map(({ name }) => name),
      [journal.name],
    );
    t.daemon = await disk.start();
    await assertHeld(t, held);
    await t.client.snapshotDestroy(held.id);
    await assertNothingKept(t, disk, device);
  },
  LIMIT,
);

test.run();
