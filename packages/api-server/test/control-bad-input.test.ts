import { connect } from "node:net";
import { ControlError, ERRORS } from "@blksnap/api";
import { eventually } from "@blksnap/testing";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { type Ask, ask, openDescriptors, startHarness } from "./control-harness.js";

const UNKNOWN_ID = "00000000-0000-4000-8000-000000000000";
const good = { devices: [], stores: ["/var/tmp"], limit_bytes: 1 << 30 };
const nested = `${"[".repeat(200_000)}${"]".repeat(200_000)}`;

function dirty(offset_bytes: number, length_bytes: number): object {
  return { device: "/dev/loop0", ranges: [{ offset_bytes, length_bytes }] };
}

/** A request, and the name of its error. */
const cases: readonly (readonly [path: string, ask: Ask, name: string])[] = [
  ["/v1/trackers", { text: "" }, "REQUEST_INVALID"],
  ["/v1/trackers", { text: "{" }, "REQUEST_INVALID"],
  ["/v1/trackers", { text: '{"device":"/dev/loop0"' }, "REQUEST_INVALID"],
  ["/v1/trackers", { text: nested }, "REQUEST_INVALID"],
  ["/v1/trackers", { text: `{"device":${nested}}` }, "REQUEST_INVALID"],
  ["/v1/trackers", { text: `"${"x".repeat(1_048_576)}"` }, "REQUEST_TOO_LARGE"],
  ["/v1/trackers", { text: `{"device":"/${"x".repeat(1_000_000)}"}` }, "REQUEST_INVALID"],
  ["/v1/trackers", { text: `{"${"x".repeat(1_000_000)}":1}` }, "REQUEST_INVALID"],
  ["/v1/trackers", { text: '{"device":"/dev/loop0","__proto__":{}}' }, "REQUEST_INVALID"],
  ["/v1/trackers", { text: "a=b", type: "text/plain" }, "MEDIA_TYPE_UNSUPPORTED"],
  ["/v1/trackers", { body: [] }, "REQUEST_INVALID"],
  ["/v1/trackers", { body: null }, "REQUEST_INVALID"],
  ["/v1/trackers", { body: {} }, "REQUEST_INVALID"],
  ["/v1/trackers", { body: { device: 7 } }, "REQUEST_INVALID"],
  ["/v1/trackers", { body: { device: "" } }, "REQUEST_INVALID"],
  ["/v1/trackers", { body: { device: "loop0" } }, "REQUEST_INVALID"],
  ["/v1/trackers", { body: { device: "/dev/x\0y" } }, "REQUEST_INVALID"],
  ["/v1/trackers", { body: { device: "/dev/loop0", force: true } }, "REQUEST_INVALID"],
  ["/v1/trackers", { body: { device: "/dev/none" } }, "DEVICE_NOT_FOUND"],
  ["/v1/trackers", { method: "DELETE" }, "REQUEST_INVALID"],
  ["/v1/trackers?device=/dev/loop0", { method: "DELETE" }, "NOT_ATTACHED"],
  ["/v1/trackers?device=/a&device=/b", { method: "DELETE" }, "REQUEST_INVALID"],
  ["/v1/trackers", { method: "PATCH" }, "METHOD_NOT_ALLOWED"],
  ["/v1/trackers", {}, "REQUEST_INVALID"],
  ["/v1/trackers?device=/dev/loop0", {}, "NOT_ATTACHED"],
  ["/v1/nothing", {}, "ROUTE_NOT_FOUND"],
  ["/v1/%zz", {}, "REQUEST_INVALID"],
  ["/v1/trackers/cbt/map?device=/d&first_block=-1&block_count=1", {}, "REQUEST_INVALID"],
  ["/v1/trackers/cbt/map?device=/d&first_block=0&block_count=0", {}, "REQUEST_INVALID"],
  ["/v1/trackers/cbt/map?device=/d&first_block=0&block_count=1e3", {}, "REQUEST_INVALID"],
  [
    "/v1/trackers/cbt/map?device=/d&first_block=9999999999999999999&block_count=1",
    {},
    "REQUEST_INVALID",
  ],
  ["/v1/trackers/cbt/dirty", { body: dirty(100, 512) }, "REQUEST_INVALID"],
  ["/v1/trackers/cbt/dirty", { body: dirty(0, 100) }, "REQUEST_INVALID"],
  ["/v1/trackers/cbt/dirty", { body: dirty(0, 0) }, "REQUEST_INVALID"],
  ["/v1/trackers/cbt/dirty", { body: dirty(2 ** 53, 512) }, "REQUEST_INVALID"],
  ["/v1/trackers/cbt/diff?device=/d&since=255", {}, "REQUEST_INVALID"],
  ["/v1/trackers/cbt/diff?device=/d&since=1&generation=x", {}, "ID_INVALID"],
  ["/v1/snapshots", { body: { ...good, limit_bytes: 0 } }, "LIMIT_INVALID"],
  ["/v1/snapshots", { body: { ...good, limit_bytes: -1 } }, "LIMIT_INVALID"],
  ["/v1/snapshots", { body: { ...good, limit_bytes: 1.5 } }, "LIMIT_INVALID"],
  ["/v1/snapshots", { body: { ...good, limit_bytes: "2G" } }, "LIMIT_INVALID"],
  ["/v1/snapshots", { body: { ...good, limit_bytes: 2 ** 60 } }, "LIMIT_INVALID"],
  ["/v1/snapshots", { body: { ...good, stores: [] } }, "REQUEST_INVALID"],
  ["/v1/snapshots", { body: { ...good, stores: ["x"] } }, "REQUEST_INVALID"],
  ["/v1/snapshots", { body: { ...good, stores: ["/missing"] } }, "STORE_NOT_FOUND"],
  ["/v1/snapshots", { body: { ...good, on_overflow: { policy: "x" } } }, "REQUEST_INVALID"],
  ["/v1/snapshots/7", { method: "DELETE" }, "ID_INVALID"],
  [`/v1/snapshots/${UNKNOWN_ID}`, { method: "DELETE" }, "SNAPSHOT_NOT_FOUND"],
  [`/v1/snapshots/${UNKNOWN_ID}`, {}, "SNAPSHOT_NOT_FOUND"],
  ["/v1/snapshots/7", {}, "ID_INVALID"],
  [`/v1/snapshots/${UNKNOWN_ID}/take`, { method: "POST" }, "SNAPSHOT_NOT_FOUND"],
  [`/v1/snapshots/${UNKNOWN_ID}/take`, { body: { force: true } }, "REQUEST_INVALID"],
  [`/v1/snapshots/${UNKNOWN_ID}/devices`, { body: { device: "/d" } }, "SNAPSHOT_NOT_FOUND"],
  [`/v1/snapshots/${UNKNOWN_ID}/events`, {}, "REQUEST_INVALID"],
  [`/v1/snapshots/${UNKNOWN_ID}/events?timeout_ms=4294967296`, {}, "REQUEST_INVALID"],
  [`/v1/snapshots/${UNKNOWN_ID}/events?timeout_ms=1`, {}, "SNAPSHOT_NOT_FOUND"],
  [`/v1/snapshots/${UNKNOWN_ID}/events/follow`, {}, "SNAPSHOT_NOT_FOUND"],
  [
    `/v1/snapshots/${UNKNOWN_ID}/events/follow`,
    { headers: { "last-event-id": "abc" } },
    "REQUEST_INVALID",
  ],
];

test("each invalid request gets a named error of few words", async () => {
  const harness = await startHarness();
  for (const [path, options, name] of cases) {
    const what = `${path} ${options.text?.slice(0, 40) ?? JSON.stringify(options)}`;
    const { status, json } = await ask(harness.socketPath, path, options);
    assert.is(json.error.name, name, what);
    assert.is(status, ERRORS[name as keyof typeof ERRORS].http_status, what);
    assert.ok(json.error.message.length < 300 && json.error.hint !== "", what);
  }
  assert.not.ok(harness.log.some((line) => line.includes('"level":50')));
  assert.is((await ask(harness.socketPath, "/v1/version")).status, 200);
  await harness.stop();
});

test("an unknown snapshot is ENODEV for destroy, else ESRCH, as in the kernel module", async () => {
  const harness = await startHarness();
  const path = `/v1/snapshots/${UNKNOWN_ID}`;
  const destroyed = await ask(harness.socketPath, path, { method: "DELETE" });
  assert.is(destroyed.json.error.errno_name, "ENODEV");
  assert.is(destroyed.json.error.errno, 19);
  const taken = await ask(harness.socketPath, `${path}/take`, { method: "POST" });
  assert.is(taken.json.error.errno_name, "ESRCH");
  assert.is(taken.json.error.errno, 3);
  await harness.stop();
});

test("an unexpected failure of an operation is INTERNAL and logged, and the server continues", async () => {
  const harness = await startHarness((driver) => {
    driver.status = () => Promise.reject(new TypeError("planted"));
    driver.version = () => {
      throw Object.assign(new Error("disk on fire"), { code: "EIO" });
    };
    driver.snapshotCollect = () =>
      Promise.reject(new ControlError("STORE_FAILED", "planted", { errnoName: "ENOSPC" }));
    return driver;
  });
  const failed = await ask(harness.socketPath, "/v1/status");
  assert.is(failed.status, 500);
  assert.is(failed.json.error.name, "INTERNAL");
  assert.is(failed.json.error.errno, null);
  assert.ok(harness.log.some((line) => line.includes("planted") && line.includes('"level":50')));
  const system = await ask(harness.socketPath, "/v1/version");
  assert.equal([system.json.error.name, system.json.error.errno], ["INTERNAL", 5]);
  const store = await ask(harness.socketPath, "/v1/snapshots");
  assert.equal([store.json.error.name, store.json.error.errno], ["STORE_FAILED", 28]);
  await harness.stop();
});

/** Sends bytes, waits for the server to close or for `lingerMs`, and disconnects. */
function sendBytes(socketPath: string, bytes: string, lingerMs: number): Promise<string> {
  return new Promise((done) => {
    let answer = "";
    const socket = connect(socketPath, () => socket.write(bytes));
    const timer = setTimeout(() => socket.destroy(), lingerMs);
    socket.on("data", (part) => {
      answer += part.toString();
    });
    socket.on("error", () => undefined);
    socket.on("close", () => {
      clearTimeout(timer);
      done(answer);
    });
  });
}

test("bytes that are not HTTP, and truncated requests, leave nothing behind", async () => {
  const harness = await startHarness();
  const { socketPath } = harness;
  await ask(socketPath, "/v1/version");
  const before = await openDescriptors();
  const garbage = await sendBytes(socketPath, "\x16\x03\x01\x02\r\n\r\n", 200_000);
  assert.match(garbage, /^HTTP\/1.1 400 .*"REQUEST_INVALID"/s);
  const header = await sendBytes(
    socketPath,
    `GET / HTTP/1.1\r\nx: ${"y".repeat(70_000)}\r\n`,
    200_000,
  );
  assert.match(header, /^HTTP\/1.1 413 .*"REQUEST_TOO_LARGE"/s);
  const head = "POST /v1/trackers HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
  for (let i = 0; i < 50; i++) {
    await sendBytes(socketPath, `${head}content-length: 500\r\n\r\n{"device":`, 2);
    await sendBytes(socketPath, head.slice(0, i), 2);
  }
  assert.is((await ask(socketPath, "/v1/version")).status, 200);
  await eventually("descriptors closed", async () => (await openDescriptors()) <= before);
  await harness.stop();
});

test("an incomplete request and a silent connection end with a named error", async () => {
  const harness = await startHarness(undefined, { requestTimeoutMs: 200 });
  const { socketPath } = harness;
  const before = await openDescriptors();
  const head = "POST /v1/trackers HTTP/1.1\r\ncontent-type: application/json\r\n";
  const slow = ["", "P", head, `${head}content-length: 500\r\n\r\n{"device":`];
  const answers = await Promise.all(slow.map((bytes) => sendBytes(socketPath, bytes, 200_000)));
  for (const answer of answers) assert.match(answer, /^HTTP\/1.1 408 .*"REQUEST_TOO_SLOW"/s);
  await eventually("descriptors closed", async () => (await openDescriptors()) <= before);
  await harness.stop();
});

/** Smaller leaks are found by control-fuzz.test.ts, on the same server. */
test("thousands of invalid requests leak neither descriptors nor memory", async () => {
  const harness = await startHarness();
  const small = cases.filter(([, options]) => (options.text?.length ?? 0) < 1000);
  async function round(count: number): Promise<void> {
    for (let i = 0; i < count; i += 16) {
      await Promise.all(
        Array.from({ length: 16 }, (_, k) => {
          const [path, options] = small[(i + k) % small.length]!;
          return ask(harness.socketPath, path, options);
        }),
      );
    }
  }
  function heapBytes(): number {
    globalThis.gc?.();
    return process.memoryUsage().heapUsed;
  }
  await round(1000);
  harness.log.length = 0;
  const heap = heapBytes();
  const descriptors = await openDescriptors();
  await round(2000);
  harness.log.length = 0;
  await eventually("descriptors closed", async () => (await openDescriptors()) <= descriptors);
  const grown = heapBytes() - heap;
  assert.ok(grown < 4 * 2 ** 20, `heap grew by ${grown} bytes`);
  await harness.stop();
});

test.run();
