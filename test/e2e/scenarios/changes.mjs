/**
 * What diff says after a random history: nothing that changed is missing, no range is a whole block too
 * large, and discarded blocks are reported as such.
 */
import * as assert from "uvu/assert";
import { ChangeHistory } from "../lib/change-history.mjs";
import { run } from "../lib/command.mjs";
import { writeDevice } from "../lib/device-file.mjs";
import { loopDisk, nullDisk } from "../lib/disks.mjs";
import { seededRandom, seedsOr } from "../lib/random.mjs";
import { scenario } from "../lib/scenario.mjs";
import { attach, MIB, takeSnapshot } from "../lib/snapshots.mjs";

const test = scenario(import.meta.url);
const BLOCK_BYTES = 65536;
/** Ends within a block of the map. */
const SIZE_BYTES = 4 * MIB + 5 * 512;
const ROUNDS = 4;
const STEPS = 16;

for (const seed of seedsOr(["one"])) {
  test(`diff after a random history, as a backup uses it (SEED=${seed})`, async (t) => {
    const device = await loopDisk(t, SIZE_BYTES);
    const { front } = await attach(t, device);
    const random = seededRandom(`changes ${seed}`);
    const options = { device, front, sizeBytes: SIZE_BYTES, blockBytes: BLOCK_BYTES, random };
    const history = await ChangeHistory.begin(t, options);
    for (let round = 0; round < ROUNDS; round++) await history.round(STEPS);
    await history.close();
  });
}

/** The ranges as "kind first+count", in blocks of the map. */
async function blocksChangedSince(t, device, since) {
  const { ranges } = await t.client.diff(device, since);
  return ranges.map(({ offset_bytes: from, length_bytes: length, kind }) => {
    const [first, blocks] = [from / BLOCK_BYTES, length / BLOCK_BYTES];
    return `${kind} ${first}+${blocks}`;
  });
}

async function takeAndDestroy(t, device) {
  const snapshot = await takeSnapshot(t, [device]);
  await snapshot.destroy();
}

test("discarded ranges: whole blocks only, and until something is written there", async (t) => {
  const device = await nullDisk(t, { sizeMib: 4, discard: true });
  const { front } = await attach(t, device);
  await writeDevice(t, front, Buffer.alloc(4 * MIB, 1));
  await takeAndDestroy(t, device);
  const [from, length] = [10 * BLOCK_BYTES + 4096, 5 * BLOCK_BYTES];
  await run(["blkdiscard", "-o", String(from), "-l", String(length), front]);
  await takeAndDestroy(t, device);
  const first = ["changed 10+1", "discarded 11+4", "changed 15+1"];
  assert.equal(await blocksChangedSince(t, device, 1), first);
  const place = ["bs=512", `seek=${(12 * BLOCK_BYTES) / 512}`, "count=1"];
  await run(["dd", "if=/dev/zero", `of=${front}`, ...place, "oflag=direct"]);
  await takeAndDestroy(t, device);
  assert.equal(await blocksChangedSince(t, device, 2), ["changed 12+1"]);
  const later = [
    "changed 10+1",
    "discarded 11+1",
    "changed 12+1",
    "discarded 13+2",
    "changed 15+1",
  ];
  assert.equal(await blocksChangedSince(t, device, 1), later);
  const { ranges } = await t.client.diff(device, 0);
  assert.is(
    ranges.reduce((sum, { length_bytes: length }) => sum + length, 0),
    4 * MIB,
  );
});

test.run();
