/** The two policies that protect the snapshot: no block of an image is lost. */
import { setTimeout as sleep } from "node:timers/promises";
import * as assert from "uvu/assert";
import { run, start } from "../lib/command.mjs";
import { assertContent, readDevice, writeDevice } from "../lib/device-file.mjs";
import { ramDisks } from "../lib/disks.mjs";
import { seededRandom } from "../lib/random.mjs";
import { scenario } from "../lib/scenario.mjs";
import { attach, MIB, memberStatus, storeFolder } from "../lib/snapshots.mjs";
import { until } from "../lib/wait.mjs";

const test = scenario(import.meta.url, { sampledIn: 2 });
const SIZE_BYTES = 24 * MIB;
const LIMIT_BYTES = 16 * MIB;
const HOUR_MS = 3_600_000;
/** Long enough for a writer that is not blocked to end. */
const STANDSTILL_MS = 500;

/** A full device and a snapshot of it that has room for two thirds. */
async function takenWith(t, onOverflow) {
  const [device] = await ramDisks(t, 1, SIZE_BYTES);
  const { front } = await attach(t, device);
  const before = seededRandom("overflow policy").bytes(SIZE_BYTES);
  await writeDevice(t, front, before);
  const stores = [storeFolder(t)];
  const options = { devices: [device], stores, limitBytes: LIMIT_BYTES, onOverflow };
  const { id } = await t.client.snapshotCreate(options);
  let exists = true;
  async function destroy() {
    if (exists) await t.client.snapshotDestroy(id);
    exists = false;
  }
  t.defer(destroy);
  const { images } = await t.client.snapshotTake(id);
  return { id, device, front, before, image: images[0].image, destroy };
}

/** Overwrites the whole front, one request after the other. */
function overwrite(t, front) {
  const output = ["bs=256k", `count=${(4 * SIZE_BYTES) / MIB}`, "oflag=direct"];
  const writing = start(["dd", "if=/dev/zero", `of=${front}`, ...output]);
  t.defer(() => {
    writing.kill("SIGKILL");
    return writing.end();
  });
  return writing;
}

function untilBlocked(t, { id, device }) {
  const isBlocked = async () => (await memberStatus(t, id, device)).blocked_writes > 0;
  return until("a write is blocked", isBlocked);
}

async function assertNothingLost(t, { id, device, image, before }) {
  await assertContent(t, image, before);
  const { lost_bytes: lost, error_code: error } = await memberStatus(t, id, device);
  assert.equal({ lost, error }, { lost: 0, error: 0 });
}

test("fail-writes: writers get ENOSPC, the image stays whole", async (t) => {
  const state = await takenWith(t, { policy: "fail-writes" });
  const { status, stderr } = await overwrite(t, state.front).end();
  assert.is(status, 1);
  assert.match(stderr, /No space left on device/);
  await assertNothingLost(t, state);
  assert.ok((await memberStatus(t, state.id, state.device)).refused_writes > 0);
  const { snapshots } = await t.client.status();
  assert.equal(snapshots[0].on_overflow, { policy: "fail-writes" });
  await state.destroy();
  assert.is((await overwrite(t, state.front).end()).status, 0);
});

test("block-writes: writers wait, and continue when the image's reader frees a part", async (t) => {
  const state = await takenWith(t, { policy: "block-writes", timeout_ms: HOUR_MS });
  const writing = overwrite(t, state.front);
  await untilBlocked(t, state);
  await readDevice(t, state.front, MIB);
  await assertNothingLost(t, state);
  await run(["blkdiscard", "-l", String(12 * MIB), state.image]);
  assert.is((await writing.end()).status, 0);
  const kept = state.before.subarray(12 * MIB);
  assert.ok((await readDevice(t, state.image, SIZE_BYTES)).subarray(12 * MIB).equals(kept));
  assert.is((await memberStatus(t, state.id, state.device)).lost_bytes, 0);
});

test("block-writes: after the time limit a writer continues, and the snapshot breaks", async (t) => {
  const state = await takenWith(t, { policy: "block-writes", timeout_ms: 30_000 });
  assert.is((await overwrite(t, state.front).end()).status, 0);
  const { lost_bytes: lost, blocked_writes: blocked } = await memberStatus(
    t,
    state.id,
    state.device,
  );
  assert.is(lost, SIZE_BYTES - LIMIT_BYTES);
  assert.ok(blocked > 0);
});

test("block-writes: destroy releases the writers at once", async (t) => {
  const state = await takenWith(t, { policy: "block-writes", timeout_ms: HOUR_MS });
  const writing = overwrite(t, state.front);
  await untilBlocked(t, state);
  let ended = false;
  void writing.end().then(() => {
    ended = true;
  });
  await sleep(STANDSTILL_MS);
  assert.not(ended);
  await state.destroy();
  assert.is((await writing.end()).status, 0);
  assert.ok((await readDevice(t, state.front, SIZE_BYTES)).every((byte) => byte === 0));
});

test.run();
