import { once } from "node:events";
import { existsSync } from "node:fs";
import { type IncomingMessage, request } from "node:http";
import { connect } from "node:net";
import { createInterface } from "node:readline";
import { ControlError } from "@blksnap/api";
import { eventually } from "@blksnap/testing";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { ask, openDescriptors, startHarness } from "./control-harness.js";
import { parseAnswers } from "./raw-exchange.js";

const corrupted = {
  event: "corrupted",
  device: "/dev/loop0",
  major: 7,
  minor: 0,
  errno: 28,
} as const;

async function started() {
  const harness = await startHarness();
  const { id } = await harness.driver.snapshotCreate({
    devices: ["/dev/loop0"],
    stores: ["/var/tmp"],
    limitBytes: 1 << 20,
  });
  const { events } = harness.driver.snapshots.get(id)!;
  return { harness, id, events };
}

test("a wait ends with its event, its timeout, or the snapshot's end", async () => {
  const { harness, id, events } = await started();
  const path = `/v1/snapshots/${id}/events?timeout_ms=`;
  assert.equal((await ask(harness.socketPath, `${path}10`)).json, { result: "timeout" });
  const waiting = ask(harness.socketPath, `${path}60000`);
  await eventually("a sleeper", () => events.sleepers === 1);
  events.push(corrupted);
  const { json } = await waiting;
  assert.is(json.result, "ok");
  assert.is(json.event.errno, 28);
  const orphan = ask(harness.socketPath, `${path}60000`);
  await eventually("a sleeper", () => events.sleepers === 1);
  await ask(harness.socketPath, `/v1/snapshots/${id}`, { method: "DELETE" });
  assert.is((await orphan).json.error.errno_name, "ESRCH");
  await harness.stop();
});

test("a create is cancelled when its client disconnects", async () => {
  const { harness } = await started();
  let heard: AbortSignal | undefined;
  harness.driver.snapshotCreate = (_options: unknown, signal?: AbortSignal) => {
    heard = signal;
    return new Promise((_, reject) => {
      signal?.addEventListener("abort", () => reject(new Error("given up")));
    });
  };
  const { socketPath } = harness;
  const outgoing = request({ socketPath, path: "/v1/snapshots", method: "POST", agent: false });
  outgoing.on("error", () => undefined);
  outgoing.setHeader("content-type", "application/json");
  outgoing.end(JSON.stringify({ devices: [], stores: ["/var/tmp"], limit_bytes: 1 << 20 }));
  await eventually("the create", () => heard !== undefined);
  assert.not.ok(heard?.aborted);
  outgoing.destroy();
  await eventually("its end", () => heard?.aborted === true);
  await harness.stop();
});

/** The lines of a response; `onLine` is called with each, and with a function that closes the connection. */
async function createInLines(
  socketPath: string,
  onLine: (line: object, cut: () => void) => void,
): Promise<object[]> {
  const outgoing = request({ socketPath, path: "/v1/snapshots", method: "POST", agent: false });
  outgoing.on("error", () => undefined);
  outgoing.setHeader("content-type", "application/json");
  outgoing.setHeader("accept", "application/x-ndjson");
  const body = { devices: ["/dev/loop1"], stores: ["/var/tmp"], limit_bytes: 1 << 20 };
  outgoing.end(JSON.stringify(body));
  const [response] = (await once(outgoing, "response")) as [IncomingMessage];
  assert.is(response.headers["content-type"], "application/x-ndjson");
  const lines: object[] = [];
  try {
    for await (const line of createInterface({ input: response })) {
      lines.push(JSON.parse(line));
      onLine(lines.at(-1)!, () => outgoing.destroy());
    }
  } catch (error) {
    assert.is((error as NodeJS.ErrnoException).code, "ECONNRESET");
  }
  return lines;
}

const steps = [0, 300_000, 600_000];

test("a create reports each step of its stores as it happens, and then the id", async () => {
  const { harness } = await started();
  const releases: (() => void)[] = [];
  harness.driver.fillSteps = steps.map((allocatedBytes) => ({
    allocatedBytes,
    done: new Promise<void>((done) => releases.push(done)),
  }));
  // No step ends before it was reported.
  const lines = await createInLines(harness.socketPath, () => releases.shift()?.());
  const { id } = lines.at(-1) as { id: string };
  assert.ok(harness.driver.snapshots.has(id));
  const progress = steps.map((allocated_bytes) => ({
    progress: { store: "/var/tmp", allocated_bytes, target_bytes: 1 << 20 },
  }));
  assert.equal(lines, [...progress, { id, attached: ["/dev/loop1"] }]);
  await harness.stop();
});

test("a create that fails after it has begun says so in its last line", async () => {
  const { harness } = await started();
  let fail: (error: Error) => void = () => undefined;
  const done = new Promise<void>((_, reject) => {
    fail = reject;
  });
  harness.driver.fillSteps = [{ allocatedBytes: 0, done }];
  const full = new ControlError("STORE_FULL", "no room");
  const lines = await createInLines(harness.socketPath, () => fail(full));
  assert.equal(lines.length, 2);
  assert.is((lines[1] as { error: { name: string } }).error.name, "STORE_FULL");
  assert.is(harness.driver.snapshots.size, 1);
  await harness.stop();
});

test("a create is cancelled if its client disconnects while a step is reported", async () => {
  const { harness } = await started();
  harness.driver.fillSteps = [{ allocatedBytes: 0, done: new Promise(() => undefined) }];
  let given: unknown;
  const create = harness.driver.snapshotCreate.bind(harness.driver);
  harness.driver.snapshotCreate = (...options) => {
    const creating = create(...options);
    creating.catch((error: unknown) => {
      given = error;
    });
    return creating;
  };
  await createInLines(harness.socketPath, (_line, cut) => cut());
  await eventually("it is given up", () => given !== undefined);
  assert.is((given as ControlError).code, "ABORTED");
  assert.is(harness.driver.snapshots.size, 1);
  await harness.stop();
});

test("without a request for lines there is one answer, with the create's own status", async () => {
  const { harness } = await started();
  harness.driver.fillSteps = [{ allocatedBytes: 0, done: Promise.resolve() }];
  const body = { devices: ["/dev/loop1"], stores: ["/var/tmp"], limit_bytes: 1 << 20 };
  const { status, json } = await ask(harness.socketPath, "/v1/snapshots", { body });
  assert.equal([status, Object.keys(json)], [200, ["id", "attached"]]);
  const stores = ["/missing"];
  const failed = await ask(harness.socketPath, "/v1/snapshots", { body: { ...body, stores } });
  assert.equal([failed.status, failed.json.error.name], [404, "STORE_NOT_FOUND"]);
  await harness.stop();
});

test("a client's waits end when it disconnects, and leave nothing behind", async () => {
  const { harness, id, events } = await started();
  await ask(harness.socketPath, "/v1/version");
  const before = await openDescriptors();
  for (const path of ["events?timeout_ms=60000", "events/follow"]) {
    const clients = Array.from({ length: 20 }, () => {
      const outgoing = request({
        socketPath: harness.socketPath,
        path: `/v1/snapshots/${id}/${path}`,
        agent: false,
      });
      outgoing.on("error", () => undefined);
      outgoing.end();
      return outgoing;
    });
    await eventually("20 sleepers", () => events.sleepers === 20);
    for (const client of clients) client.destroy();
    await eventually("no sleepers", () => events.sleepers === 0);
  }
  await eventually("descriptors closed", async () => (await openDescriptors()) <= before);
  assert.is(events.pending, 0);
  await harness.stop();
});

test("a stream brings kept and new events as lines, and ends with the snapshot", async () => {
  const { harness, id, events } = await started();
  for (let i = 0; i < 3; i++) events.push(corrupted);
  const following = ask(harness.socketPath, `/v1/snapshots/${id}/events/follow?from=2`);
  await eventually("a sleeper", () => events.sleepers === 1);
  events.push(corrupted);
  await eventually("a sleeper", () => events.sleepers === 1);
  await harness.driver.snapshotDestroy(id);
  const { status, type, bytes } = await following;
  assert.is(status, 200);
  assert.is(type, "application/x-ndjson");
  const lines = bytes.toString().trimEnd().split("\n");
  assert.equal(
    lines.map((line) => JSON.parse(line).sequence),
    [2, 3, 4],
  );
  await harness.stop();
});

test("server-sent events have ids, and a client that names the last one continues after it", async () => {
  const { harness, id, events } = await started();
  for (let i = 0; i < 5; i++) events.push(corrupted);
  async function follow(lastEventId: string, accept: string) {
    const headers = { accept, "last-event-id": lastEventId };
    // Such a client repeats the query that it began with.
    const path = `/v1/snapshots/${id}/events/follow?from=1`;
    return ask(harness.socketPath, path, { headers });
  }
  const streams = [follow("3", "text/event-stream"), follow("4", "*/*")] as const;
  await eventually("both streams at their end", () => events.sleepers === 2);
  await harness.driver.snapshotDestroy(id);
  const [sent, lines] = await Promise.all(streams);
  assert.is(sent.type, "text/event-stream");
  const told = sent.bytes.toString().trimEnd().split("\n\n");
  assert.equal(
    told.map((text) => {
      const [first, second, data] = text.split("\n");
      return [first, second, JSON.parse(data!.replace("data: ", "")).sequence];
    }),
    [
      ["id: 4", "event: corrupted", 4],
      ["id: 5", "event: corrupted", 5],
    ],
  );
  assert.is(JSON.parse(lines.bytes.toString()).sequence, 5);
  await harness.stop();
});

test("a stream's header comes before its first event", async () => {
  const { harness, id } = await started();
  await new Promise<void>((done, fail) => {
    const path = `/v1/snapshots/${id}/events/follow`;
    const outgoing = request({ socketPath: harness.socketPath, path, agent: false });
    outgoing.on("response", (response) => {
      response.on("error", () => undefined);
      outgoing.destroy();
      done();
    });
    outgoing.on("error", fail);
    outgoing.end();
  });
  await harness.stop();
});

test("closing the server ends all waits at once, by name", async () => {
  const { harness, id, events } = await started();
  const path = `/v1/snapshots/${id}`;
  const waiting = ask(harness.socketPath, `${path}/events?timeout_ms=60000`);
  const following = ask(harness.socketPath, `${path}/events/follow`);
  await eventually("2 sleepers", () => events.sleepers === 2);
  await harness.stop();
  const { name, errno } = (await waiting).json.error;
  assert.equal([name, errno], ["SHUTTING_DOWN", 108]);
  assert.match((await following).bytes.toString(), /"SHUTTING_DOWN"/);
});

test("a request that arrives while the server closes gets a named error", async () => {
  const { socketPath, stop } = await startHarness();
  const socket = connect(socketPath);
  await once(socket, "connect");
  // This request begins before the close and ends after it, so its connection is not idle. The server has its first
  // line when it has responded to the request before it, which was sent in the same write.
  const version = "GET /v1/version HTTP/1.1\r\n\r\n";
  socket.write(`${version}GET /v1/status HTTP/1.1\r\n`);
  let told = "";
  socket.setEncoding("utf8").on("data", (part: string) => {
    told += part;
  });
  await eventually("the first is answered", () => parseAnswers(told).length === 1);
  const stopped = stop();
  await eventually("it closes", () => !existsSync(socketPath));
  socket.write("\r\n");
  await once(socket, "close");
  assert.match(parseAnswers(told)[1]?.body ?? "", /"SHUTTING_DOWN"/);
  await stopped;
});

test("an operation that is running when the server closes is still answered", async () => {
  let finish: (() => void) | undefined;
  const harness = await startHarness((driver) => {
    driver.snapshotCollect = () =>
      new Promise((done) => {
        finish = () => done([]);
      });
    return driver;
  });
  const running = ask(harness.socketPath, "/v1/snapshots");
  await eventually("the operation runs", () => finish !== undefined);
  const stopped = harness.stop();
  finish?.();
  assert.equal((await running).json, { snapshots: [] });
  await stopped;
});

test.run();
