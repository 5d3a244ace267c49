import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { DaemonEvent, EventLogOptions } from "@blksnap/api";
import { StateFile } from "@blksnap/driver";
import pino from "pino";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { FakeDriver } from "../../api-server/dist/testing/fake-driver.js";
import { DaemonLog, openDaemonLog } from "../dist/events/daemon-log.js";
import { NO_FACTS } from "../dist/events/facts.js";

let dir = "";
let driver: FakeDriver;
const open: DaemonLog[] = [];
test.before.each(() => {
  dir = mkdtempSync(join(tmpdir(), "daemon-log-"));
  driver = new FakeDriver();
});
test.after.each(() => {
  for (const log of open.splice(0)) log.close(true);
  rmSync(dir, { recursive: true });
});

/** A log that never looks because of elapsed time. */
function start(capacity = 100): DaemonLog {
  const logger = pino({ level: "silent" });
  const pollIntervalMs = 2 ** 30;
  const options = { stateDirectory: dir, driver, logger, version: "1.2.3" };
  const log = new DaemonLog({ ...options, capacity, pollIntervalMs });
  open.push(log);
  return log;
}

async function read(log: DaemonLog, options: EventLogOptions = {}): Promise<DaemonEvent[]> {
  const events: DaemonEvent[] = [];
  for await (const event of log.read(options, new AbortController().signal)) events.push(event);
  return events;
}

function kinds(events: readonly DaemonEvent[]): string[] {
  return events.map(({ event }) => event);
}

/** Follows until an event of this kind arrives. */
async function until(
  log: DaemonLog,
  kind: string,
  options: EventLogOptions = {},
): Promise<string[]> {
  const found: string[] = [];
  for await (const event of log.read({ ...options, follow: true }, new AbortController().signal)) {
    found.push(event.event);
    if (event.event === kind) return found;
  }
  throw new Error(`ended without ${kind}: ${found.join(", ")}`);
}

const create = { devices: ["/dev/loop0"], stores: ["/var/tmp"], limitBytes: 2 ** 27 };

test("changes by a request become events with sequence number and severity", async () => {
  const log = start();
  await log.begin();
  const { id } = await driver.snapshotCreate(create);
  log.poll();
  await until(log, "snapshot_created");
  await driver.snapshotTake(id);
  log.poll();
  await until(log, "snapshot_taken");
  await driver.snapshotDestroy(id);
  log.poll();
  await until(log, "snapshot_destroyed");
  const events = await read(log);
  assert.equal(kinds(events), [
    "daemon_started",
    "attached",
    "snapshot_created",
    "snapshot_taken",
    "snapshot_destroyed",
  ]);
  assert.equal(
    events.map(({ sequence }) => sequence),
    [1, 2, 3, 4, 5],
  );
  assert.ok(
    events.every(({ severity, log: name }) => severity === "info" && name === events[0]?.log),
  );
});

test("a reader resumes where it stopped, even with the next daemon", async () => {
  const first = start();
  await first.begin();
  await driver.attach("/dev/loop0");
  first.poll();
  await until(first, "attached");
  const last = (await read(first)).at(-1);
  // The daemon is killed: nothing is closed.
  driver.identity = { ...driver.identity, pid: 4711 };
  const next = start();
  await next.begin();
  const { sequence: since, log } = last ?? { sequence: 0, log: "" };
  const events = await read(next, { since, log });
  assert.equal(kinds(events), ["daemon_started", "resumed"]);
  const [started] = events;
  assert.is(started?.event === "daemon_started" && started.cause, "crash");
  assert.is(events[0]?.sequence, since + 1);
});

test("a daemon with the pid of a killed one is distinguished from it", async () => {
  const first = start();
  await first.begin();
  const { id } = await driver.snapshotCreate(create);
  first.poll();
  await until(first, "snapshot_created");
  driver.snapshots.delete(id);
  const since = (await read(first)).at(-1)!.sequence;
  const next = start();
  await next.begin();
  assert.equal(kinds(await read(next, { since })), ["daemon_started", "resumed", "snapshot_lost"]);
});

test("events that are no longer kept are counted", async () => {
  const log = start(3);
  await log.begin();
  for (let n = 0; n < 9; n++) log.push({ event: "reactor_turns", reactor: n });
  const [lost, first] = await read(log, { since: 2 });
  assert.equal(lost?.event === "lost" && [lost.count, lost.sequence], [5, 7]);
  assert.is(first?.sequence, 8);
  // A reader that has read nothing yet has lost nothing.
  assert.equal(kinds(await read(log)).includes("lost"), false);
});

test("a number of another log, or of no log, is detected", async () => {
  const log = start();
  await log.begin();
  for (const wanted of [{ since: 1, log: "00000000" }, { since: 999 }]) {
    const [lost, started] = await read(log, wanted);
    assert.equal(lost?.event === "lost" && lost.count, null);
    assert.is(started?.event, "daemon_started");
  }
  assert.equal(await read(log, { since: 1 }), []);
});

test("a snapshot's own events are reported with its id, by one daemon only", async () => {
  const log = start();
  await log.begin();
  const { id } = await driver.snapshotCreate(create);
  log.poll();
  const events = driver.snapshots.get(id)!.events;
  const corrupted = { event: "corrupted", device: "/dev/loop0", errno: 28 } as const;
  events.push({ ...corrupted, major: 7, minor: 0 });
  await until(log, "corrupted");
  const reported = (await read(log)).find(({ event }) => event === "corrupted");
  assert.equal(
    reported?.event === "corrupted" && [reported.id, reported.errno, reported.severity],
    [id, 28, "error"],
  );
  log.close(true);
  driver.identity = { ...driver.identity, pid: 4711 };
  const next = start();
  await next.begin();
  events.push({ event: "store_answered", device: "/dev/loop0", store: "/var/tmp" });
  const found = await until(next, "store_answered");
  assert.is(found.filter((kind) => kind === "corrupted").length, 1);
});

test("a clean end is reported as such, and the next start does not count as following a crash", async () => {
  const log = start();
  await log.begin();
  await driver.attach("/dev/loop0");
  log.poll();
  await until(log, "attached");
  log.close(false);
  const next = start();
  await next.begin();
  const events = await read(next);
  const all = ["daemon_started", "attached", "detached", "daemon_ended", "daemon_started"];
  // The fake driver still has its device.
  assert.equal(kinds(events), [...all, "attached"]);
  const started = events[4];
  assert.is(started?.event === "daemon_started" && started.cause, "start");
});

test("a clean stop destroys no persistent snapshot; the next daemon reports its fate", async () => {
  const log = start();
  await log.begin();
  driver.devices.set("/dev/loop2", 2 ** 20);
  const of = (device: string) => driver.snapshotCreate({ ...create, devices: [device] });
  const persistent = [await of("/dev/loop0"), await of("/dev/loop1")];
  const other = await of("/dev/loop2");
  const [back, lost] = persistent.map(({ id }) => id) as [string, string];
  const { status } = driver;
  let resumed = false;
  driver.status = async () => {
    const now = await status.call(driver);
    const mark = (one: (typeof now.snapshots)[number]) =>
      one.id === other.id ? one : { ...one, persistent: true, resumed };
    return { ...now, snapshots: now.snapshots.map(mark) };
  };
  const corrupted = { event: "corrupted", device: "/dev/loop0", errno: 28, major: 7, minor: 0 };
  const kept = driver.snapshots.get(back)!;
  const { events } = kept;
  events.push(corrupted as Parameters<typeof events.push>[0]);
  log.poll();
  await until(log, "corrupted");
  log.ending();
  // A poll while the driver stops.
  for (const { id } of [...persistent, other]) driver.snapshots.delete(id);
  log.poll();
  await until(log, "snapshot_destroyed");
  log.close(false);
  const ended = await read(log);
  const destroyed = ended.filter(({ event }) => event === "snapshot_destroyed");
  assert.equal(
    destroyed.map((event) => event.event === "snapshot_destroyed" && event.id),
    [other.id],
  );
  resumed = true;
  driver.snapshots.set(back, kept);
  const next = start();
  await next.begin();
  events.push({ event: "store_answered", device: "/dev/loop0", store: "/var/tmp" });
  await until(next, "store_answered");
  const reported = (await read(next, { since: ended.at(-1)!.sequence })).filter(
    ({ event }) => event !== "attached",
  );
  assert.equal(
    reported.map((event) => [
      event.event,
      "id" in event ? event.id : "cause" in event && event.cause,
    ]),
    [
      ["daemon_started", "start"],
      ["snapshot_lost", lost],
      ["snapshot_resumed", back],
      // Its own events continue from the last copied one.
      ["store_answered", back],
    ],
  );
});

test("followers end with the daemon", async () => {
  const log = start();
  await log.begin();
  const following = until(log, "never");
  log.close(true);
  await following.then(
    () => assert.unreachable(),
    (error: Error) => assert.match(error.message, /daemon_ended$/),
  );
});

test("facts that are damaged, or from another version, are ignored", async () => {
  const parts = ['{"version":1,"facts":{"life":"1"},"cursors":{}}', '{"version":1,"facts":null}'];
  for (const text of ["", "null", "{}", ...parts]) {
    writeFileSync(join(dir, StateFile.eventsFacts), text);
    const log = start();
    await log.begin();
    const [started] = (await read(log)).slice(-1);
    assert.is(started?.event === "daemon_started" && started.cause, "start");
    log.close(true);
    rmSync(join(dir, StateFile.eventsFacts));
  }
});

test("facts of another version are not compared with", async () => {
  const first = start();
  await first.begin();
  const { id } = await driver.snapshotCreate(create);
  first.poll();
  await until(first, "snapshot_created");
  const since = (await read(first)).at(-1)!.sequence;
  first.close(true);
  const path = join(dir, StateFile.eventsFacts);
  const kept = JSON.parse(readFileSync(path, "utf8")) as { version: number };
  writeFileSync(path, JSON.stringify({ ...kept, version: kept.version + 1 }));
  const next = start();
  await next.begin();
  const events = (await read(next, { since: since + 1 })).map(({ event }) => event);
  assert.equal(events, ["daemon_started", "attached", "snapshot_created"]);
  driver.snapshots.delete(id);
  next.poll();
  await until(next, "snapshot_destroyed");
});

test("facts that cannot be compared are reported as lost, once", async () => {
  const text = { version: 1, facts: { ...NO_FACTS, life: "1", snapshots: { gone: {} } } };
  writeFileSync(join(dir, StateFile.eventsFacts), JSON.stringify({ ...text, cursors: {} }));
  const log = start();
  await log.begin();
  await driver.attach("/dev/loop0");
  log.poll();
  await until(log, "attached");
  const events = await read(log);
  assert.equal(kinds(events), ["daemon_started", "lost", "attached"]);
  const [lost] = events.filter(({ event }) => event === "lost");
  assert.equal(lost?.event === "lost" && [lost.count, lost.severity], [null, "warning"]);
});

test("a driver that does not answer does not end the daemon; later facts are reported", async () => {
  const log = start();
  const { status } = driver;
  driver.status = () => Promise.reject(new Error("it hangs"));
  await log.begin();
  assert.equal(await read(log), []);
  driver.status = status;
  await driver.attach("/dev/loop0");
  log.poll();
  await until(log, "attached");
});

test("the daemon runs without an event log if it cannot create one", () => {
  const stateDirectory = join(dir, "a-file", "below");
  writeFileSync(join(dir, "a-file"), "");
  const logger = pino({ level: "silent" });
  assert.is(openDaemonLog({ stateDirectory, driver, logger, version: "1" }), undefined);
});

test.run();
