import type { SnapshotEvent } from "@blksnap/api";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { failureOf, startHarness } from "./harness.js";

const noSpace = {
  event: "no_space",
  requested_nr_sect: 2048,
  limit_bytes: 1 << 20,
  used_bytes: 1 << 19,
} as const;

async function eventually(holds: () => boolean): Promise<void> {
  for (let i = 0; i < 1000 && !holds(); i++) await new Promise((done) => setTimeout(done, 5));
  assert.ok(holds());
}

test("a wait gives the event or, in time, nothing", async () => {
  const { client, create, driver, stop } = await startHarness();
  const id = await create();
  assert.is(await client.waitEvent(id, 20), undefined);
  driver.snapshots.get(id)!.events.push(noSpace);
  assert.is((await client.waitEvent(id, 60_000))?.event, "no_space");
  await stop();
});

test("a wait is longer than the client's own timeout, where it was asked to be", async () => {
  const { create, driver, socketPath, stop } = await startHarness();
  const { BlksnapClient } = await import("../dist/index.js");
  const hasty = new BlksnapClient({ socketPath, timeoutMs: 50 });
  const id = await create();
  const waiting = hasty.waitEvent(id, 60_000);
  await new Promise((done) => setTimeout(done, 200));
  driver.snapshots.get(id)!.events.push(noSpace);
  assert.is((await waiting)?.event, "no_space");
  await stop();
});

test("a signal ends a wait at once, here and in the daemon", async () => {
  const { client, create, driver, stop } = await startHarness();
  const id = await create();
  const { events } = driver.snapshots.get(id)!;
  const controller = new AbortController();
  const waiting = failureOf(client.waitEvent(id, 60_000, { signal: controller.signal }));
  await eventually(() => events.sleepers === 1);
  controller.abort();
  assert.is((await waiting).code, "ABORTED");
  await eventually(() => events.sleepers === 0);
  const aborted = AbortSignal.abort();
  assert.is((await failureOf(client.version({ signal: aborted }))).code, "ABORTED");
  await stop();
});

test("following gives every event, ends with the snapshot, and can be left", async () => {
  const { client, create, driver, stop } = await startHarness();
  const id = await create();
  const { events } = driver.snapshots.get(id)!;
  for (let i = 0; i < 500; i++) events.push(noSpace);
  for await (const event of client.followEvents(id)) if (event.sequence === 3) break;
  await eventually(() => events.sleepers === 0);
  const seen: SnapshotEvent[] = [];
  for await (const event of client.followEvents(id, 100)) {
    seen.push(event);
    if (event.sequence === 500) events.push(noSpace);
    if (event.sequence === 501) await client.snapshotDestroy(id);
  }
  assert.equal(
    seen.map(({ sequence }) => sequence),
    Array.from({ length: 402 }, (_, i) => i + 100),
  );
  assert.is((await failureOf(client.followEvents(id).next())).code, "SNAPSHOT_NOT_FOUND");
  await stop();
});

test("following ends with an error when the daemon stops", async () => {
  const { client, create, driver, stop } = await startHarness();
  const id = await create();
  const next = failureOf(client.followEvents(id).next());
  await eventually(() => driver.snapshots.get(id)!.events.sleepers === 1);
  await stop();
  assert.is((await next).code, "SHUTTING_DOWN");
});

test.run();
