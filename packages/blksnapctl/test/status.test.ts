import { test } from "uvu";
import * as assert from "uvu/assert";
import { startHarness } from "./harness.js";

test("addresses of exports have their own lines, so that tables fit a terminal", async () => {
  const harness = await startHarness();
  const device = "/dev/loop0";
  await harness.driver.attach(device);
  const { id } = await harness.driver.snapshotCreate({
    devices: [device],
    stores: ["/x"],
    limitBytes: 2 ** 30,
  });
  await harness.driver.snapshotTake(id);
  const status = harness.driver.status.bind(harness.driver);
  const front = "nbd+unix:///front/loop0?socket=/run/user/1000/blksnap/nbd.sock";
  const image = `nbd+unix:///image/${id}/loop0?socket=/run/user/1000/blksnap/nbd.sock`;
  harness.driver.status = async () => {
    const { trackers, snapshots, ...rest } = await status();
    const members = (of: (typeof snapshots)[number]) =>
      of.devices.map((member) => ({ ...member, front, image }));
    return {
      ...rest,
      trackers: trackers.map((tracker) => ({ ...tracker, front, image })),
      snapshots: snapshots.map((one) => ({ ...one, devices: members(one) })),
    };
  };
  const lines = (await harness.ok("status")).split("\n");
  assert.ok(lines.includes(`  front ${front}`));
  assert.ok(lines.includes(`  image ${image}`));
  const others = lines.filter((line) => !line.includes("nbd+unix:"));
  assert.ok(others.some((line) => /^\/dev\/loop0 +NBD +\S+ \S+ +[0-9a-f]{8} +NBD +ok$/.test(line)));
  assert.ok(others.every((line) => line.length < 80));
  await harness.stop();
});

test("full stores are not said to become full, and a damaged image is named before it is mounted", async () => {
  const harness = await startHarness();
  await harness.driver.attach("/dev/loop0");
  const stores = ["/x"];
  const asked = { devices: ["/dev/loop0"], stores, limitBytes: 2 ** 30 };
  const { id } = await harness.driver.snapshotCreate(asked);
  await harness.driver.snapshotTake(id);
  const { image } = await harness.driver.snapshotInfo("/dev/loop0");
  const status = harness.driver.status.bind(harness.driver);
  harness.driver.status = async () => {
    const { snapshots, ...rest } = await status();
    const damaged = (of: (typeof snapshots)[number]) =>
      of.devices.map((member) => ({ ...member, error_code: -5 }));
    return {
      ...rest,
      snapshots: snapshots.map((one) => ({ ...one, full_in_ms: 0, devices: damaged(one) })),
    };
  };
  assert.match(await harness.ok("status"), / of 1\.0 GiB, full\n/);
  const { status: ended, err } = await harness.run("mount", "-d", "/dev/loop0", harness.dir);
  assert.is(ended, 1);
  assert.match(err, `blksnapctl: ${image} has lost blocks, which give I/O errors`);
  await harness.stop();
});

test("a stalled reactor says what to do, with the daemon's process", async () => {
  const harness = await startHarness();
  const status = harness.driver.status.bind(harness.driver);
  harness.driver.status = async () => {
    const now = await status();
    return { ...now, reactors: [{ index: 1, devices: 1, stalled_ms: 65_000, stalls: 1 }] };
  };
  const { pid } = (await status()).daemon;
  const line = `! reactor 1 has stalled for 1 min 5 s: 1 device of it does not answer. See dmesg for their disks; if it lasts, kill -9 ${pid}: the next daemon resumes them.`;
  assert.ok((await harness.ok("status")).split("\n").includes(line));
  await harness.stop();
});

test.run();
