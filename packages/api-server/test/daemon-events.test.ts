import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { type FakeDaemon, startFakeDaemon } from "../dist/testing/fake-daemon.js";
import type { FakeDaemonEvent } from "../dist/testing/fake-event-log.js";
import { ask } from "./control-harness.js";

const stalled: FakeDaemonEvent = {
  event: "reactor_stalled",
  severity: "error",
  reactor: 0,
  devices: [],
};
const turns: FakeDaemonEvent = { event: "reactor_turns", severity: "info", reactor: 0 };

let dir = "";
let socketPath = "";
let daemon: FakeDaemon;
test.before.each(async () => {
  dir = await mkdtemp(join(tmpdir(), "blksnap-events-"));
  socketPath = join(dir, "s.sock");
  daemon = await startFakeDaemon(socketPath);
});
test.after.each(async () => {
  await daemon.server.close();
  await rm(dir, { recursive: true });
});

async function lines(path: string, headers = {}): Promise<{ sequence: number; event: string }[]> {
  const { status, type, bytes } = await ask(socketPath, path, { headers });
  assert.equal([status, type], [200, "application/x-ndjson"]);
  const text = bytes.toString();
  return text === ""
    ? []
    : text
        .trimEnd()
        .split("\n")
        .map((line) => JSON.parse(line));
}

test("kept events come as lines, all of them or those after a number", async () => {
  assert.equal(await lines("/v1/events"), []);
  daemon.events.push(stalled);
  daemon.events.push(turns);
  const all = await lines("/v1/events");
  assert.equal(
    all.map(({ sequence, event }) => [sequence, event]),
    [
      [1, "reactor_stalled"],
      [2, "reactor_turns"],
    ],
  );
  assert.is((await lines("/v1/events?since=1&log=0badcafe")).length, 1);
  assert.is((await lines("/v1/events?since=1&log=00000000")).length, 2);
  assert.is((await lines("/v1/events?since=2&follow=false")).length, 0);
});

test("a client of server-sent events resumes by sequence number and log", async () => {
  daemon.events.push(stalled);
  daemon.events.push(turns);
  const headers = { accept: "text/event-stream", "last-event-id": "0badcafe:1" };
  const { type, bytes } = await ask(socketPath, "/v1/events?since=0", { headers });
  assert.is(type, "text/event-stream");
  assert.match(bytes.toString(), /^id: 0badcafe:2\nevent: reactor_turns\ndata: \{[^\n]+\}\n\n$/);
});

test("followers are notified when the daemon stops", async () => {
  const following = ask(socketPath, "/v1/events?follow=true");
  while (daemon.events.sleepers === 0) await new Promise((done) => setTimeout(done, 5));
  daemon.events.push(stalled);
  await daemon.server.close();
  const [first, last] = (await following).bytes.toString().trimEnd().split("\n");
  assert.is(JSON.parse(first!).event, "reactor_stalled");
  assert.is(JSON.parse(last!).error.name, "SHUTTING_DOWN");
});

test("invalid numbers, logs and headers are refused", async () => {
  for (const query of [
    "since=-1",
    "since=x",
    "since=1.5",
    "log=x",
    "log=0BADCAFE",
    "follow=2",
    "from=1",
  ]) {
    const { status, json } = await ask(socketPath, `/v1/events?${query}`);
    assert.equal([query, status, json.error.name], [query, 400, "REQUEST_INVALID"]);
  }
  for (const id of ["7", "0badcafe", "0badcafe:", "0badcafe:1234567890123456", "../..:1"]) {
    const { status } = await ask(socketPath, "/v1/events", { headers: { "last-event-id": id } });
    assert.is(status, 400, id);
  }
});

test("only requests that change something trigger the event log", async () => {
  await ask(socketPath, "/v1/status");
  assert.is(daemon.events.polls, 0);
  await ask(socketPath, "/v1/trackers", { body: { device: "/dev/loop0" } });
  while (daemon.events.polls === 0) await new Promise((done) => setTimeout(done, 5));
  assert.is(daemon.events.polls, 1);
});

test("the description has the route and each kind by name", async () => {
  const { json } = await ask(socketPath, "/v1/openapi.json");
  assert.is(json.paths["/v1/events"].get.operationId, "readDaemonEvents");
  assert.ok("DaemonSpliceLostEvent" in json.components.schemas);
});

test.run();
