import { randomUUID } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  type DiffRange,
  ERRORS,
  eventSchemas,
  OPERATIONS,
  snapshotSchemas,
  statusSchemas,
  trackerSchemas,
} from "@blksnap/api";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { fieldsWithoutUnit, numericFields } from "../../api/dist/testing/units.js";
import { startFakeDaemon } from "../dist/testing/fake-daemon.js";
import { ask, startHarness } from "./control-harness.js";

// The same validator as the server's.
const fastifyRequire = createRequire(createRequire(import.meta.url).resolve("fastify"));
const { default: Ajv } = fastifyRequire("ajv") as {
  default: new (
    options: object,
  ) => {
    validate(schema: unknown, value: unknown): boolean;
    errorsText(): string;
  };
};

function follows(schema: unknown, value: unknown): void {
  const ajv = new Ajv({ allowUnionTypes: true, strict: false });
  assert.ok(ajv.validate(schema, value), `${ajv.errorsText()}: ${JSON.stringify(value)}`);
}

test("every operation's response matches its schema", async () => {
  const harness = await startHarness();
  const { socketPath } = harness;
  const device = "/dev/loop0";
  const attached = await ask(socketPath, "/v1/trackers", { body: { device } });
  follows(trackerSchemas.attachResponse, attached.json);
  const again = await ask(socketPath, "/v1/trackers", { body: { device } });
  assert.equal(again.json, { ...attached.json, already_attached: true });

  const created = await ask(socketPath, "/v1/snapshots", {
    body: { devices: [device], stores: ["/var/tmp", "memory:"], limit_bytes: 1 << 20 },
  });
  follows(snapshotSchemas.snapshotCreateResponse, created.json);
  const { id } = created.json;
  const added = await ask(socketPath, `/v1/snapshots/${id}/devices`, {
    body: { device: "/dev/loop1" },
  });
  follows(snapshotSchemas.snapshotAddResponse, added.json);
  const taken = await ask(socketPath, `/v1/snapshots/${id.toUpperCase()}/take`, { method: "POST" });
  follows(snapshotSchemas.snapshotTakeResponse, taken.json);
  assert.is(taken.json.images.length, 2);

  const marked = await ask(socketPath, "/v1/trackers/cbt/dirty", {
    body: { device, ranges: [{ offset_bytes: 65_536, length_bytes: 512 }] },
  });
  follows(trackerSchemas.markDirtyResponse, marked.json);
  const file = await ask(socketPath, "/v1/trackers/cbt/dirty_file", { body: { file: "/mnt/x" } });
  follows(trackerSchemas.markDirtyFileResponse, file.json);

  const query = `device=${encodeURIComponent(device)}`;
  const reads: readonly (readonly [string, unknown])[] = [
    ["/v1/version", statusSchemas.versionResponse],
    ["/v1/status", statusSchemas.statusResponse],
    ["/v1/snapshots", snapshotSchemas.snapshotList],
    [`/v1/snapshots/${id}`, statusSchemas.snapshotStatus],
    [`/v1/trackers?${query}`, statusSchemas.trackerStatus],
    [`/v1/trackers/cbt?${query}`, trackerSchemas.cbtInfo],
    [`/v1/trackers/cbt/diff?${query}&since=0`, trackerSchemas.diffResponse],
    [`/v1/trackers/snapshot?${query}`, trackerSchemas.snapshotInfo],
    [`/v1/snapshots/${id}/events?timeout_ms=0`, eventSchemas.waitEventResponse],
  ];
  for (const [path, schema] of reads) {
    const answer = await ask(socketPath, path);
    assert.is(answer.status, 200, path);
    follows(schema, answer.json);
  }
  const map = await ask(socketPath, `/v1/trackers/cbt/map?${query}&first_block=0&block_count=4`);
  assert.is(map.type, "application/octet-stream");
  assert.equal([...map.bytes], [0, 1, 0, 0]);

  follows(
    snapshotSchemas.snapshotId,
    (await ask(socketPath, `/v1/snapshots/${id}`, { method: "DELETE" })).json,
  );
  const detached = await ask(socketPath, `/v1/trackers?${query}`, { method: "DELETE" });
  follows(trackerSchemas.detachResponse, detached.json);
  await harness.stop();
});

test("the OpenAPI description names every route", async () => {
  const harness = await startHarness();
  const { json } = await ask(harness.socketPath, "/v1/openapi.json");
  assert.is(json.openapi, "3.1.0");
  const routes = Object.entries(json.paths as Record<string, object>).flatMap(([path, methods]) =>
    Object.keys(methods).map((method) => `${method} ${path}`),
  );
  assert.equal(
    routes.sort(),
    [
      "delete /v1/snapshots/{id}",
      "delete /v1/trackers",
      "get /metrics",
      "get /v1/openapi.json",
      "get /v1/snapshots",
      "get /v1/snapshots/{id}",
      "get /v1/snapshots/{id}/events",
      "get /v1/snapshots/{id}/events/follow",
      "get /v1/snapshots/{id}/events/list",
      "get /v1/status",
      "get /v1/trackers",
      "get /v1/trackers/cbt",
      "get /v1/trackers/cbt/diff",
      "get /v1/trackers/cbt/map",
      "get /v1/trackers/snapshot",
      "get /v1/version",
      "post /v1/snapshots",
      "post /v1/snapshots/{id}/devices",
      "post /v1/snapshots/{id}/take",
      "post /v1/trackers",
      "post /v1/trackers/cbt/dirty",
      "post /v1/trackers/cbt/dirty_file",
    ].sort(),
  );
  await harness.stop();
});

interface Operation {
  readonly operationId: string;
  readonly parameters?: readonly { readonly name: string; readonly schema: object }[];
  readonly requestBody?: Bodies;
  readonly responses: Readonly<Record<string, Bodies>>;
}
interface Bodies {
  readonly content?: Readonly<Record<string, { readonly schema: object }>>;
}

function operationsOf(json: { readonly paths: object }): [string, Operation][] {
  return Object.entries(json.paths as Record<string, Record<string, Operation>>).flatMap(
    ([path, methods]) =>
      Object.entries(methods).map(([method, it]): [string, Operation] => [`${method} ${path}`, it]),
  );
}

test("each number in the OpenAPI description names its unit, if it has one", async () => {
  const harness = await startHarness();
  const { json } = await ask(harness.socketPath, "/v1/openapi.json");
  const found = operationsOf(json).flatMap(
    ([route, { parameters = [], requestBody, responses }]) => {
      const bodies = [requestBody, ...Object.values(responses)];
      return [
        ...parameters.map(({ name, schema }) => [`${route} ${name}`, schema, name] as const),
        ...bodies.flatMap((body) =>
          Object.values(body?.content ?? {}).map(({ schema }) => [route, schema, ""] as const),
        ),
      ];
    },
  );
  const components = Object.entries(json.components.schemas as Record<string, object>);
  found.push(...components.map(([name, schema]) => [name, schema, ""] as const));
  const numbers = found.flatMap(([path, schema, name]) => numericFields(schema, path, name));
  assert.ok(numbers.some(({ path }) => path.endsWith("cbt/map first_block")));
  assert.ok(numbers.some(({ path }) => path === "ByteRange.offset_bytes"));
  assert.ok(numbers.some(({ path }) => path === "TrackerStatus.capacity_bytes"));
  assert.equal(
    found.flatMap(([path, schema, name]) => fieldsWithoutUnit(schema, path, name)),
    [],
  );
  await harness.stop();
});

test("a diff in lines begins at the requested offset, and is consistent with one take", async () => {
  const harness = await startHarness();
  const device = "/dev/loop0";
  await ask(harness.socketPath, "/v1/trackers", { body: { device } });
  const options = { devices: [device], stores: ["memory:"], limitBytes: 1 << 20 };
  const { id } = await harness.driver.snapshotCreate(options);
  const ranges = [0, 4, 8].map((block) => ({
    offset_bytes: block * 65_536,
    length_bytes: 2 * 65_536,
  }));
  await harness.driver.markDirty(device, ranges);
  await harness.driver.snapshotTake(id);
  const path = `/v1/trackers/cbt/diff?device=${device}&since=0`;
  async function lines(more: string) {
    const headers = { accept: "application/x-ndjson" };
    const { bytes } = await ask(harness.socketPath, path + more, { headers });
    const [head, ...rest] = bytes
      .toString()
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line));
    follows(trackerSchemas.diffHead, head);
    for (const line of rest) follows(trackerSchemas.diffRanges, line);
    assert.is(head.changed_blocks, 6, "the sums are of all");
    return rest
      .flatMap((line) => line.ranges)
      .map((range: DiffRange) => [range.offset_bytes / 65_536, range.length_bytes / 65_536]);
  }
  assert.equal(await lines(""), [
    [0, 2],
    [4, 2],
    [8, 2],
  ]);
  assert.equal(await lines(`&offset_bytes=${5 * 65_536}&changes_number=1`), [
    [5, 1],
    [8, 2],
  ]);
  assert.equal(await lines(`&offset_bytes=${10 * 65_536}`), []);
  const whole = await ask(harness.socketPath, `${path}&offset_bytes=${5 * 65_536}`);
  follows(trackerSchemas.diffResponse, whole.json);
  assert.is(whole.json.ranges.length, 2);
  const later = await ask(harness.socketPath, `${path}&changes_number=2`);
  assert.equal([later.status, later.json.error.name], [409, "CBT_NUMBER_CHANGED"]);
  await harness.stop();
});

test("each operation of the API is served, and errors are named from the catalogue", async () => {
  const dir = await mkdtemp(join(tmpdir(), "blksnap-control-"));
  const { server } = await startFakeDaemon(join(dir, "s.sock"));
  const { json } = await ask(server.socketPath, "/v1/openapi.json");
  assert.equal(
    operationsOf(json).map(([, { operationId }]) => operationId),
    [...new Set(operationsOf(json).map(([, { operationId }]) => operationId))],
  );
  assert.equal(
    operationsOf(json)
      .map(([, { operationId }]) => operationId)
      .sort(),
    Object.keys(OPERATIONS).sort(),
  );
  const { schemas } = json.components;
  assert.equal(schemas.ErrorBody.properties.name, { $ref: "#/components/schemas/ErrorName" });
  assert.equal(schemas.ErrorName.enum, Object.keys(ERRORS));
  await server.close();
  await rm(dir, { recursive: true });
});

test("a wrong method gets the list of supported ones", async () => {
  const harness = await startHarness();
  const cases = [
    ["PATCH", "/v1/trackers?device=/dev/loop0", "POST, GET, DELETE"],
    ["OPTIONS", "/v1/status", "GET"],
    ["HEAD", "/v1/status", "GET"],
    ["PUT", `/v1/snapshots/${randomUUID()}`, "GET, DELETE"],
    ["GET", `/v1/snapshots/${randomUUID()}/take`, "POST"],
    ["POST", "/metrics", "GET"],
  ] as const;
  for (const [method, path, allowed] of cases) {
    const { status, json, allow } = await ask(harness.socketPath, path, { method });
    assert.equal([status, allow], [405, allowed], path);
    if (method !== "HEAD") assert.is(json.error.name, "METHOD_NOT_ALLOWED");
  }
  for (const path of ["/v1/snapshots/", "/v1/snapshots/x/y", "/v1", "/v1/status/"]) {
    const { status, json, allow } = await ask(harness.socketPath, path, { method: "PUT" });
    assert.equal([status, json.error.name, allow], [404, "ROUTE_NOT_FOUND", undefined], path);
  }
  await harness.stop();
});

test("metrics are Prometheus text with the driver's and the server's counters", async () => {
  const harness = await startHarness();
  await ask(harness.socketPath, "/v1/version");
  const { type, bytes } = await ask(harness.socketPath, "/metrics");
  assert.ok(type.startsWith("text/plain; version=0.0.4"));
  const lines = bytes.toString().split("\n");
  assert.ok(lines.includes("blksnap_trackers 0"));
  const counter = 'blksnap_control_requests_total{method="GET",route="/v1/version",status="200"} 1';
  assert.ok(lines.includes(counter));
  await harness.stop();
});

test("requests before the driver is ready are answered STARTING", async () => {
  const harness = await startHarness();
  await harness.stop();
  const { startControlServer } = await import("../dist/index.js");
  const { silentLogger } = await import("./control-harness.js");
  const server = await startControlServer({
    socketPath: harness.socketPath,
    logger: silentLogger(),
  });
  const early = await ask(harness.socketPath, "/v1/status");
  assert.is(early.status, 503);
  assert.is(early.json.error.name, "STARTING");
  server.serve(harness.driver);
  assert.is((await ask(harness.socketPath, "/v1/status")).status, 200);
  await server.close();
});

test.run();
