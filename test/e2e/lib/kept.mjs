/** Snapshots that outlive a boot, and the disk that keeps them. */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { run } from "./command.mjs";
import { MIB } from "./snapshots.mjs";
import { until } from "./wait.mjs";

export const LIMIT_BYTES = 256 * MIB;
const FILL_LIMIT_MS = 400_000;
const RECOVERY_LIMIT_MS = 300_000;

export async function md5(path) {
  const text = await run(["sh", "-c", 'dd if="$1" bs=1M iflag=direct | md5sum', "sh", path]);
  return text.split(" ")[0];
}

export function fill(device, seekKib, countKib) {
  const blockKib = countKib % 256 === 0 && seekKib % 256 === 0 ? 256 : 4;
  const words = ["dd", "if=/dev/urandom", `of=${device}`, `bs=${blockKib}k`, "oflag=direct"];
  const place = [`seek=${seekKib / blockKib}`, `count=${countKib / blockKib}`, "conv=notrunc"];
  return run([...words, ...place, "iflag=fullblock"], { timeLimitMs: FILL_LIMIT_MS });
}

export async function waitForNext(t, pid) {
  const next = async () => {
    const status = await t.client.status().catch(() => undefined);
    return status !== undefined && status.daemon.pid !== pid;
  };
  await until("the next daemon serves", next, RECOVERY_LIMIT_MS);
}

/** A snapshot that comes back after a reboot. */
export function createKept(t, disk, device) {
  return t.client.snapshotCreate({
    devices: [device],
    stores: [disk.stores],
    limitBytes: LIMIT_BYTES,
    persistent: true,
  });
}

/** No snapshot has a store any more, and the tracker leaves nothing on the medium. */
export async function assertNothingKept(t, disk, device) {
  await until("no store is left", () => readdirSync(disk.stores).length === 0);
  await t.client.detach(device, { forget: true });
  await until("no record is left", () => readdirSync(join(disk.path, "state")).join() === "lock");
}

/** A persistent snapshot that is taken, and what it froze. */
export async function heldSnapshot(t, disk, device) {
  const { id } = await createKept(t, disk, device);
  const { images } = await t.client.snapshotTake(id);
  return { id, frozen: await md5(images[0].image) };
}

/** The snapshot is there, its image is right, and stays so. */
export async function assertHeld(t, { id, frozen }) {
  const { snapshots, trackers } = await t.client.status();
  assert.equal(
    snapshots.map((snapshot) => [snapshot.id, snapshot.persistent]),
    [[id, true]],
  );
  const [{ front, image }] = trackers;
  assert.is(await md5(image), frozen);
  await fill(front, 0, 1024);
  assert.is(await md5(image), frozen);
}
