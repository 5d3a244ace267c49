import { test } from "uvu";
import * as assert from "uvu/assert";
import { startFakeDaemon } from "../../api-server/dist/testing/fake-daemon.js";
import type { FakeDaemonEvent } from "../../api-server/dist/testing/fake-event-log.js";
import { eventually, type Harness, startHarness } from "./harness.js";

const corrupted = {
  event: "corrupted",
  device: "/dev/loop0",
  major: 7,
  minor: 0,
  errno: 28,
} as const;
const noSpace = {
  event: "no_space",
  allocated_bytes: 134_217_728,
  limit_bytes: 2 ** 27,
  used_bytes: 2 ** 26,
} as const;

let harness: Harness;
let id = "";
test.before.each(async () => {
  harness = await startHarness();
  const options = { devices: ["/dev/loop0"], stores: ["/var/tmp"], limitBytes: 2 ** 27 };
  id = (await harness.driver.snapshotCreate(options)).id;
});
test.after.each(() => harness.stop());

function queue() {
  return harness.driver.snapshots.get(id)!.events;
}

test("snapshot_waitevent reports event, timeout, interruption and a lost snapshot", async () => {
  queue().push(corrupted);
  const event = await harness.ok("snapshot_waitevent", "-i", id, "-t", "1000");
  assert.match(event, /^result=ok\ntime=\d+\nevent=corrupted\n$/);
  assert.is(await harness.ok("snapshot_waitevent", "-i", id, "-t", "10"), "result=timeout\n");
  assert.is(
    await harness.ok("snapshot_waitevent", "-i", id, "-t", "10", "-j"),
    '{"result":"timeout"}\n',
  );

  const waiting = harness.start("snapshot_waitevent", "--id", id, "--timeout", "60000");
  await eventually("a sleeper", () => queue().sleepers === 1);
  waiting.child.kill("SIGINT");
  const { status, out } = await waiting.outcome;
  assert.equal([status, out], [0, "result=interrupted\n"]);
  await eventually("no sleeper", () => queue().sleepers === 0);

  const lost = harness.start("snapshot_waitevent", "--id", id, "--timeout", "60000");
  await eventually("a sleeper", () => queue().sleepers === 1);
  await harness.driver.snapshotDestroy(id);
  const gone = await lost.outcome;
  assert.equal([gone.status, gone.out], [1, "result=not found\n"]);
});

test("snapshot_waitevent --json has the event with its payload", async () => {
  queue().push(noSpace);
  const json = JSON.parse(await harness.ok("snapshot_waitevent", "-i", id, "-t", "0", "--json"));
  assert.is(json.result, "ok");
  assert.is(json.event.allocated_bytes, 134_217_728);
});

test("snapshot_watcher prints events and ends when the snapshot is corrupted", async () => {
  queue().push(noSpace);
  queue().push(corrupted);
  const lines = (await harness.ok("snapshot_watcher", "-i", id)).split("\n");
  assert.is(lines[0], "Start snapshot watcher.");
  assert.match(
    lines[1]!,
    /^\d+ - The the difference storage already grow up to 128 MiB\. Limit has been reached\.$/,
  );
  assert.match(
    lines[2]!,
    /^\d+ - The snapshot was corrupted for device \[7:0\] with error "No space left on device"\.$/,
  );
  assert.equal(lines.slice(3), ["Snapshot watcher finished", ""]);
});

test("snapshot_watcher ends with the snapshot, and fails without one", async () => {
  const watching = harness.start("snapshot_watcher", "-i", id);
  await eventually("a sleeper", () => queue().sleepers === 1);
  await harness.driver.snapshotDestroy(id);
  const { status, out } = await watching.outcome;
  const end = "Snapshot not found\nSnapshot watcher finished\n";
  assert.equal([status, out], [0, `Start snapshot watcher.\n${end}`]);
  const again = await harness.run("snapshot_watcher", "-i", id);
  assert.equal([again.status, again.out], [1, `Start snapshot watcher.\n${end}`]);
});

test("snapshot_watcher ends at SIGINT", async () => {
  const watching = harness.start("snapshot_watcher", "-i", id);
  await eventually("a sleeper", () => queue().sleepers === 1);
  watching.child.kill("SIGINT");
  const { status, out } = await watching.outcome;
  assert.equal([status, out], [0, "Start snapshot watcher.\nSnapshot watcher finished\n"]);
});

test("events prints kept events; --follow continues and removes none", async () => {
  queue().push(noSpace);
  const following = harness.start("events", "--id", id, "--follow", "--json");
  await eventually("the first line", () => following.out().includes("\n"));
  queue().push(corrupted);
  await eventually("the second line", () => following.out().split("\n").length === 3);
  const text = await harness.ok("events", "--id", id);
  assert.match(
    text,
    /^\S+ no_space: the stores have grown to their limit of 128\.0 MiB, 64\.0 MiB are used\n/,
  );
  assert.match(
    text,
    /^\S+ corrupted: image of \/dev\/loop0 lost blocks: No space left on device$/m,
  );
  const listed = JSON.parse(await harness.ok("events", "--id", id, "--json")).events;
  assert.equal(
    listed.map(({ sequence }: { sequence: number }) => sequence),
    [1, 2],
    "looking takes nothing away",
  );
  const taken = ["snapshot_waitevent", "-i", id, "-t", "0", "--json"];
  for (const reader of [[], ["--reader", "backup"], ["--reader", "monitor"]]) {
    const { event } = JSON.parse(await harness.ok(...taken, ...reader));
    assert.is(event.sequence, 1, "each reader begins with the first one");
  }
  assert.is(JSON.parse(await harness.ok(...taken)).event.sequence, 2);
  await harness.driver.snapshotDestroy(id);
  const { status, out } = await following.outcome;
  assert.is(status, 0);
  assert.equal(
    out
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line).event),
    ["no_space", "corrupted"],
  );
});

const lost: FakeDaemonEvent = {
  event: "reactor_stalled",
  severity: "error",
  reactor: 0,
  devices: ["/dev/a"],
};
const turns: FakeDaemonEvent = { event: "reactor_turns", severity: "info", reactor: 0 };

test("events --all prints those of the daemon, from a number on, and follows", async () => {
  const { events } = harness;
  events.push(lost);
  events.push(turns);
  const text = await harness.ok("events", "--all");
  assert.match(
    text,
    /^\S+ 1 error reactor_stalled: reactor 0 is stalled, and does not serve \/dev\/a\n\S+ 2 info [^\n]+\n$/,
  );
  for (const since of ["1", "0badcafe:1"]) {
    const [line, ...more] = (await harness.ok("events", "--all", "--since", since, "-j")).split(
      "\n",
    );
    assert.is(JSON.parse(line!).sequence, 2);
    assert.equal(more, [""]);
  }
  assert.is((await harness.ok("events", "--all", "--since", "00000000:1")).split("\n").length, 3);
  const following = harness.start("events", "--all", "--follow", "--json", "--since", "2");
  await eventually("a reader", () => events.sleepers === 1);
  events.push(lost);
  await eventually("a line", () => following.out().includes("\n"));
  following.child.kill("SIGINT");
  const { status, out } = await following.outcome;
  assert.equal([status, JSON.parse(out).sequence], [0, 3]);
});

test("a kind of a newer daemon is printed by its name", async () => {
  harness.events.push({ event: "moon_full", severity: "info" } as never);
  assert.match(
    await harness.ok("events", "--all"),
    /^\S+ 1 info moon_full: unknown event moon_full\n$/,
  );
});

test("events --all follows the daemon that serves next, each event once", async () => {
  harness.events.push(lost);
  const following = harness.start("events", "--all", "--follow", "--json");
  await eventually("the first line", () => following.out().includes("\n"));
  await harness.server.close();
  harness.events.push(turns);
  const next = await startFakeDaemon(harness.socketPath, harness.driver, harness.events);
  await eventually("the second line", () => following.out().split("\n").length === 3);
  following.child.kill("SIGINT");
  const { out } = await following.outcome;
  await next.server.close();
  const sequences = out
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line).sequence);
  assert.equal(sequences, [1, 2]);
});

test("events requires --id or --all, and options that match", async () => {
  const wrong = [
    ["events"],
    ["events", "--all", "--id", id],
    ["events", "--all", "--from", "1", "--follow"],
    ["events", "--id", id, "--since", "1"],
    ["events", "--id", id, "--follow", "--since", "1"],
    ["events", "--all", "--since", "one"],
  ];
  for (const args of wrong) {
    const { status, out, err } = await harness.run(...args);
    assert.equal([status, out], [2, ""], args.join(" "));
    assert.match(err, /^blksnapctl: [^\n]+\n$/);
  }
});

test("--follow continues with the daemon that serves next", async () => {
  queue().push(noSpace);
  const following = harness.start("events", "--id", id, "--follow", "--json");
  await eventually("the first line", () => following.out().includes("\n"));
  await harness.server.close();
  queue().push(corrupted);
  const next = await startFakeDaemon(harness.socketPath, harness.driver);
  await eventually("the second line", () => following.out().split("\n").length === 3);
  await next.driver.snapshotDestroy(id);
  const { status, out } = await following.outcome;
  assert.is(status, 0);
  const told = out.trimEnd().split("\n");
  assert.equal(
    told.map((line) => JSON.parse(line).sequence),
    [1, 2],
  );
  await next.server.close();
});

test.run();
