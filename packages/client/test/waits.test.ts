import { mock } from "node:test";
import type { SnapshotCreateProgress, SnapshotEvent } from "@blksnap/api";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { type FakeDaemon, startFakeDaemon } from "../../api-server/dist/testing/fake-daemon.js";
import type { BlksnapClientError } from "../dist/client-error.js";
import { CLIENT_TIMEOUT_MS, failureOf, startHarness } from "./harness.js";

const noSpace = {
  event: "no_space",
  allocated_bytes: 1_048_576,
  limit_bytes: 1 << 20,
  used_bytes: 1 << 19,
} as const;

async function eventually(holds: () => boolean): Promise<void> {
  for (let i = 0; i < 40_000 && !holds(); i++) await new Promise((done) => setTimeout(done, 5));
  assert.ok(holds());
}

const MIB = 2 ** 20;
const create = { devices: ["/dev/loop0"], stores: ["/var/tmp"], limitBytes: 64 * MIB };

/** The result of a create under a simulated clock. */
async function outcomeOf(
  run: () => Promise<{ readonly id: string }>,
): Promise<{ readonly id: string; readonly error?: BlksnapClientError }> {
  mock.timers.enable({ apis: ["setTimeout"] });
  try {
    return await run();
  } catch (error) {
    return { id: "", error: error as BlksnapClientError };
  } finally {
    mock.timers.reset();
  }
}

test("a create waits as long as its stores make progress, and reports it", async () => {
  const { client, driver, stop } = await startHarness();
  const releases: (() => void)[] = [];
  driver.fillSteps = [0, 1, 2, 3].map((step) => ({
    allocatedBytes: step * MIB,
    done: new Promise<void>((done) => releases.push(done)),
  }));
  const told: SnapshotCreateProgress[] = [];
  const onProgress = (progress: SnapshotCreateProgress) => {
    told.push(progress);
    // All steps together take several times the limit of one.
    mock.timers.tick(CLIENT_TIMEOUT_MS - 1);
    releases.shift()?.();
  };
  const made = await outcomeOf(() => client.snapshotCreate(create, { onProgress }));
  for (const go of releases) go();
  await stop();
  assert.is(made.error, undefined);
  assert.ok(driver.snapshots.has(made.id));
  assert.equal(
    told,
    [0, 1, 2, 3].map((step) => ({
      store: "/var/tmp",
      allocated_bytes: step * MIB,
      target_bytes: 64 * MIB,
    })),
  );
});

test("a pause of this process is no silence of the daemon", async () => {
  const { client, driver, stop } = await startHarness();
  let release: () => void = () => undefined;
  const done = new Promise<void>((resolve) => {
    release = resolve;
  });
  driver.fillSteps = [{ allocatedBytes: MIB, done }];
  const onProgress = () => {
    mock.timers.tick(100 * CLIENT_TIMEOUT_MS);
    release();
  };
  const made = await outcomeOf(() => client.snapshotCreate(create, { onProgress }));
  release();
  await stop();
  assert.is(made.error, undefined);
});

test("a create without progress fails, and leaves nothing", async () => {
  const { client, driver, stop } = await startHarness();
  let isDone = false;
  const ask = driver.snapshotCreate.bind(driver);
  driver.snapshotCreate = (...options) => ask(...options).finally(() => (isDone = true));
  driver.fillSteps = [{ allocatedBytes: MIB, done: new Promise(() => undefined) }];
  const onProgress = () => {
    // What is due in one step runs once, as after a pause.
    for (let steps = 0; steps < 24; steps++) mock.timers.tick(CLIENT_TIMEOUT_MS / 12);
  };
  const { error } = await outcomeOf(() => client.snapshotCreate(create, { onProgress }));
  await eventually(() => isDone);
  await stop();
  assert.is(error?.code, "TIMEOUT");
  assert.is(driver.snapshots.size, 0);
});

test("a create's failure keeps its name, even after it has begun", async () => {
  const { client, daemon, driver, stop } = await startHarness();
  driver.fillSteps = [{ allocatedBytes: MIB, done: new Promise(() => undefined) }];
  const failure = await failureOf(
    client.snapshotCreate(create, { onProgress: () => void daemon.server.close() }),
  );
  assert.is(failure.code, "ABORTED");
  await stop();
});

test("a wait returns the event or, after its timeout, nothing", async () => {
  const { client, create, driver, stop } = await startHarness();
  const id = await create();
  assert.is(await client.waitEvent(id, 20), undefined);
  driver.snapshots.get(id)!.events.push(noSpace);
  assert.is((await client.waitEvent(id, 60_000))?.event, "no_space");
  await stop();
});

test("a requested wait may exceed the client's own timeout", async () => {
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

test("an undefined time limit is none of the caller's", async () => {
  const { create, driver, socketPath, stop } = await startHarness();
  const { BlksnapClient } = await import("../dist/index.js");
  const hasty = new BlksnapClient({ socketPath, timeoutMs: 50 });
  const id = await create();
  const options = { timeoutMs: undefined };
  const waiting = hasty.waitEvent(id, 60_000, options);
  const following = hasty.followEvents(id, 0, options).next();
  await new Promise((done) => setTimeout(done, 200));
  driver.snapshots.get(id)!.events.push(noSpace);
  assert.is((await waiting)?.event, "no_space");
  assert.is((await following).value?.event, "no_space");
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

test("following returns every event, ends with the snapshot, and can be left", async () => {
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

test("a stream continues with the next daemon, after the last event that has arrived", async () => {
  const { client, create, daemon, driver, socketPath, stop } = await startHarness();
  const id = await create();
  const snapshot = driver.snapshots.get(id)!;
  for (let i = 0; i < 3; i++) snapshot.events.push(noSpace);
  const seen: number[] = [];
  let next: FakeDaemon | undefined;
  for await (const { sequence } of client.followEvents(id, 2, { resumeMs: 60_000 })) {
    seen.push(sequence);
    if (sequence === 3) {
      await daemon.server.close();
      // This one comes while no daemon serves.
      snapshot.events.push(noSpace);
      next = await startFakeDaemon(socketPath, driver);
    }
    if (sequence === 4) snapshot.events.push(noSpace);
    if (sequence === 5) await driver.snapshotDestroy(id);
  }
  assert.equal(seen, [2, 3, 4, 5]);
  const lost = await failureOf(client.followEvents(id, 0, { resumeMs: 60_000 }).next());
  assert.is(lost.code, "SNAPSHOT_NOT_FOUND", "what no daemon can mend is said at once");
  await next!.server.close();
  await stop();
});

test("a stream that no daemon resumes in time fails", async () => {
  const { client, create, driver, stop } = await startHarness();
  const id = await create();
  const next = failureOf(client.followEvents(id, 0, { resumeMs: 1 }).next());
  await eventually(() => driver.snapshots.get(id)!.events.sleepers === 1);
  await stop();
  assert.match((await next).code, /^(SHUTTING_DOWN|DAEMON_NOT_RUNNING)$/);
});

test.run();
