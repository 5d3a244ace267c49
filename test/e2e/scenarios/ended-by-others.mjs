/** Fronts and images that another program stops or deletes. */
import { existsSync } from "node:fs";
import { UblkControl } from "@blksnap/ublk";
import * as assert from "uvu/assert";
import { attempt, run } from "../lib/command.mjs";
import { ctl } from "../lib/ctl.mjs";
import { ramDisks } from "../lib/disks.mjs";
import { IMAGE_GONE } from "../lib/kernel-log.mjs";
import { scenario } from "../lib/scenario.mjs";
import { attach, MIB, pendingEvents, takeSnapshot } from "../lib/snapshots.mjs";
import { until } from "../lib/wait.mjs";

const SIZE_BYTES = 8 * MIB;
const ENODEV = 19;
const LIMIT_MS = 300_000;

const test = scenario(import.meta.url);

const numberOf = (path) => Number(path.slice("/dev/ublkb".length));

/** A program with control commands of its own. */
async function withControl(use) {
  const control = await UblkControl.open();
  try {
    await use(control);
  } finally {
    control.close();
  }
}

async function trackerOf(t, device) {
  const { trackers } = await t.client.status();
  return trackers.find((tracker) => tracker.device === device);
}

/** Until the daemon has noticed that the front is gone, and released it. */
async function untilEnded(t, device, front) {
  const isGone = async () => (await trackerOf(t, device)).front_live === false;
  await until("status says that the front has ended", isGone, LIMIT_MS);
  assert.not.ok(existsSync(front));
}

function fill(path) {
  return run(["dd", "if=/dev/urandom", `of=${path}`, "bs=1M", "count=8", "oflag=direct"]);
}

function read(path) {
  return attempt(["dd", `if=${path}`, "of=/dev/null", "bs=4k", "count=4", "iflag=direct"]);
}

/** Attached under a number that the kernel gives back a while after its last descriptor was closed. */
function attachAs(t, device, front) {
  return until(
    `${front} is free again`,
    async () => {
      const attached = await attach(t, device);
      if (attached.front === front) return attached;
      await attached.detach();
      return undefined;
    },
    LIMIT_MS,
  );
}

test("a front that is deleted under a snapshot is reported, its image gives EIO, and it can be detached", async (t) => {
  t.expectKernelMessages(IMAGE_GONE);
  const [device, other] = await ramDisks(t, 2, SIZE_BYTES);
  const { front, detach } = await attach(t, device);
  await fill(front);
  const { id, images, destroy } = await takeSnapshot(t, [device], { stores: ["memory:"] });
  assert.is((await read(images[0])).status, 0);
  await withControl((control) => control.deleteDevice(numberOf(front)));
  await untilEnded(t, device, front);
  const events = await pendingEvents(t, id);
  assert.equal(
    events.map(({ event, errno }) => [event, errno]),
    [["corrupted", ENODEV]],
  );
  assert.is((await trackerOf(t, device)).error_code, -ENODEV);
  assert.match((await ctl("status")).stdout, "has ended the front");

  // What is attached now gets its number, and its places in the reactor's tables.
  const successor = await attachAs(t, other, front);
  await fill(successor.front);
  await run(["sh", "-c", `echo 3 > /proc/sys/vm/drop_caches`]);
  assert.is.not((await read(images[0])).status, 0, "the image gives bytes");
  for (const operation of [
    () => t.client.attach(device),
    async () => {
      const { id: next } = await t.client.snapshotCreate({
        devices: [device],
        stores: ["memory:"],
        limitBytes: 64 * MIB,
      });
      t.defer(() => t.client.snapshotDestroy(next));
      await t.client.snapshotTake(next);
    },
  ]) {
    const error = await operation().catch((failure) => failure);
    assert.ok(["FRONT_ENDED", "DEVICE_IN_OTHER_SNAPSHOT"].includes(error.code), error.message);
  }
  await destroy();
  await detach();
  assert.ok(existsSync(successor.front), "the other device's front is gone");
  assert.is((await read(successor.front)).status, 0);
  await successor.detach();
  const again = await attach(t, device);
  await run(["cmp", again.front, device]);
  await again.detach();
});

test("a front that is only stopped leaves nothing behind when it is detached", async (t) => {
  const [device] = await ramDisks(t, 1, SIZE_BYTES);
  const { front, detach } = await attach(t, device);
  await withControl((control) => control.stopDevice(numberOf(front)));
  await untilEnded(t, device, front);
  const error = await t.client.attach(device).catch((failure) => failure);
  assert.is(error.code, "FRONT_ENDED");
  await detach();
  assert.not.ok(existsSync(`/sys/class/ublk-char/ublkc${numberOf(front)}`));
});

test("a deleted image is reported, and its snapshot can be destroyed", async (t) => {
  t.expectKernelMessages(IMAGE_GONE);
  const [device] = await ramDisks(t, 1, SIZE_BYTES);
  const { front, detach } = await attach(t, device);
  await fill(front);
  const { id, images, destroy } = await takeSnapshot(t, [device], { stores: ["memory:"] });
  await withControl((control) => control.deleteDevice(numberOf(images[0])));
  const image = async () => (await trackerOf(t, device)).image;
  await until("status shows no image", async () => (await image()) === null, LIMIT_MS);
  const [event] = await pendingEvents(t, id);
  assert.equal([event.event, event.errno], ["corrupted", ENODEV]);
  // The front still works.
  await fill(front);
  await destroy();
  const next = await takeSnapshot(t, [device], { stores: ["memory:"] });
  assert.is((await read(next.images[0])).status, 0);
  await next.destroy();
  await detach();
});

test.run();
