import { MARK_RANGES_MAX } from "@blksnap/api";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { failureOf, startHarness } from "./harness.js";

const device = "/dev/loop0";

test("each operation has a method", async () => {
  const { client, create, stop } = await startHarness();
  assert.is((await client.version()).api, "v1");
  assert.is((await client.attach(device)).already_attached, false);
  const id = await create();
  await client.snapshotAdd(id, "/dev/loop1");
  assert.is((await client.snapshotTake(id)).images.length, 2);
  assert.is((await client.snapshotInfo(device)).snapshot_id, id);
  assert.equal(await client.snapshotCollect(), [
    { id, taken: true, devices: [device, "/dev/loop1"] },
  ]);
  await client.markDirty(device, [{ offset_bytes: 0, length_bytes: 4096 }]);
  assert.is((await client.markDirtyFile("/mnt/file", device)).device_number, "7:0");
  const { generation_id } = await client.cbtInfo(device);
  assert.is((await client.diff(device, 0, generation_id)).changed_blocks, 3);
  assert.equal([...(await client.readCbtMapSlice(device, 0, 2))], [1, 0]);
  const { info, map } = await client.readCbtMap(device);
  assert.is(map.length, info.block_count);
  const { trackers, snapshots } = await client.status();
  assert.is(trackers.length, 2);
  assert.equal(await client.tracker(device), trackers[0]);
  assert.equal(await client.snapshot(id), snapshots[0]);
  assert.match(await client.metrics(), /blksnap_trackers 2/);
  assert.is((await client.openapi())["openapi"], "3.1.0");
  await client.snapshotDestroy(id);
  assert.is((await client.detach(device)).device, device);
  await stop();
});

/** Requests as "METHOD /path", with ":name" for what varies. */
function described(openapi: object): string[] {
  const { paths } = openapi as { paths: Readonly<Record<string, object>> };
  return Object.entries(paths).flatMap(([path, methods]) => {
    const route = path.replaceAll(/\{(\w+)\}/g, ":$1");
    return Object.keys(methods).map((method) => `${method.toUpperCase()} ${route}`);
  });
}

test("the client asks for each request of the description", async () => {
  const { client, create, stop } = await startHarness();
  const id = await create();
  const address = { address: "127.0.0.1", port: 10_809 };
  await client.markDirtyFile("/mnt/file");
  await client.markDirty(device, [{ offset_bytes: 0, length_bytes: 4096 }]);
  await client.snapshotAdd(id, "/dev/loop1");
  await client.snapshotTake(id);
  await client.snapshot(id);
  await client.snapshotInfo(device);
  await client.snapshotCollect();
  await client.readCbtMap(device);
  await client.diff(device, 0);
  await client.tracker(device);
  await client.status();
  await client.version();
  await client.waitEvent(id, 0);
  await client.listEvents(id);
  await client.daemonEvents().next();
  await client.nbd.open({ ...address, insecure: true });
  await client.nbd.list();
  await client.nbd.close(address);
  await client.snapshotDestroy(id);
  assert.is((await failureOf(client.followEvents(id).next())).code, "SNAPSHOT_NOT_FOUND");
  await client.attach(device);
  await client.detach(device);
  const openapi = await client.openapi();
  await client.daemonUpgrade();
  assert.is((await failureOf(client.daemonStop())).code, "DAEMON_IN_USE");
  await client.metrics();
  const metrics = await client.metrics();
  const asked = [...metrics.matchAll(/requests_total\{method="(\w+)",route="([^"]+)"/g)].map(
    ([, method, route]) => `${method} ${route}`,
  );
  assert.equal([...new Set(asked)].sort(), described(openapi).sort());
  await stop();
});

test("errors carry name, errno and advice", async () => {
  const { client, stop } = await startHarness();
  const error = await failureOf(client.detach("/dev/loop0"));
  assert.is(error.name, "BlksnapClientError");
  assert.equal([error.code, error.errno, error.errnoName], ["NOT_ATTACHED", 2, "ENOENT"]);
  assert.match(error.message, "/dev/loop0 is not attached");
  assert.match(error.hint, "blksnapctl attach");
  assert.is(error.toBody().name, "NOT_ATTACHED");
  const id = "00000000-0000-4000-8000-000000000000";
  assert.is((await failureOf(client.snapshotDestroy(id))).errnoName, "ENODEV");
  assert.is((await failureOf(client.snapshotTake("7/../../x"))).code, "ID_INVALID");
  await client.attach(device);
  assert.is((await failureOf(client.diff(device, 0, id))).code, "CBT_GENERATION_CHANGED");
  await stop();
});

test("many ranges are sent in several requests", async () => {
  const { client, stop } = await startHarness();
  await client.attach(device);
  const ranges = Array.from({ length: MARK_RANGES_MAX + 1 }, (_, i) => ({
    offset_bytes: i * 512,
    length_bytes: 512,
  }));
  assert.is((await client.markDirty(device, ranges)).ranges, ranges.length);
  assert.is((await failureOf(client.markDirty(device, []))).code, "REQUEST_INVALID");
  await stop();
});

test("a map is read again if a take comes in between", async () => {
  const { client, create, driver, stop } = await startHarness();
  await client.attach(device);
  await client.markDirty(device, [{ offset_bytes: 0, length_bytes: 4096 }]);
  const id = await create();
  const read = driver.readCbtMap.bind(driver);
  let reads = 0;
  driver.readCbtMap = async (...slice) => {
    const map = Buffer.from(await read(...slice));
    if (reads++ === 0) await driver.snapshotTake(id);
    return map;
  };
  const { info, map } = await client.readCbtMap(device);
  assert.equal([reads, info.changes_number, map[0]], [2, 1, 1]);
  await stop();
});

test.run();
