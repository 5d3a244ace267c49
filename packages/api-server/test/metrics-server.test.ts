import { existsSync, statSync, writeFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { lacksRoot, testUnless } from "@blksnap/testing";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { startControlServer } from "../dist/server.js";
import { FakeDriver } from "../dist/testing/fake-driver.js";
import { ask, silentLogger } from "./control-harness.js";

let dir = "";
test.before.each(async () => {
  dir = await mkdtemp(join(tmpdir(), "blksnap-metrics-"));
});
test.after.each(async () => {
  await rm(dir, { recursive: true, force: true });
});

const paths = () => ({ socketPath: join(dir, "s"), metricsSocketPath: join(dir, "m") });

test("the metrics socket serves only metrics", async () => {
  const { socketPath, metricsSocketPath } = paths();
  const server = await startControlServer({
    socketPath,
    metricsSocketPath,
    metricsGroup: "blksnap-no-such-group",
    logger: silentLogger(),
    control: new FakeDriver(),
  });
  assert.is(statSync(metricsSocketPath).mode & 0o777, 0o600);
  const { status, type, bytes } = await ask(metricsSocketPath, "/metrics");
  assert.is(status, 200);
  assert.ok(type.startsWith("text/plain; version=0.0.4"));
  assert.match(bytes.toString(), "blksnap_trackers 0");
  for (const path of ["/", "/v1/status", "/v1/version", "/metrics/x"]) {
    assert.is((await ask(metricsSocketPath, path)).status, 404, path);
  }
  for (const method of ["POST", "DELETE", "PUT"]) {
    assert.is((await ask(metricsSocketPath, "/metrics", { method })).status, 405, method);
  }
  await server.close();
  assert.not.ok(existsSync(metricsSocketPath));
});

testUnless(test, lacksRoot())("members of the group may read metrics", async () => {
  const { socketPath, metricsSocketPath } = paths();
  const server = await startControlServer({
    ...{ socketPath, metricsSocketPath, group: "blksnap-no-such-group", metricsGroup: "daemon" },
    logger: silentLogger(),
    control: new FakeDriver(),
  });
  const { mode, uid, gid } = statSync(metricsSocketPath);
  assert.equal([mode & 0o777, uid, gid], [0o660, 0, 1]);
  assert.is(statSync(socketPath).mode & 0o777, 0o600);
  await server.close();
});

test("a connection that cannot be accepted ends neither server", async () => {
  const servers: Server[] = [];
  const { listen } = Server.prototype;
  Server.prototype.listen = function (this: Server, ...words: unknown[]): Server {
    servers.push(this);
    return Reflect.apply(listen, this, words);
  } as typeof listen;
  const { socketPath, metricsSocketPath } = paths();
  const server = await startControlServer({
    ...{ socketPath, metricsSocketPath },
    logger: silentLogger(),
    control: new FakeDriver(),
  }).finally(() => {
    Server.prototype.listen = listen;
  });
  assert.is(servers.length, 2);
  for (const one of servers) {
    // As Node reports errors of accept(2), which it throws without a listener.
    for (let time = 0; time < 2; time++) one.emit("error", new Error("accept ENOMEM"));
  }
  assert.is((await ask(socketPath, "/v1/status")).status, 200);
  assert.is((await ask(metricsSocketPath, "/metrics")).status, 200);
  await server.close();
});

test("before a driver serves, metrics fail with STARTING", async () => {
  const { socketPath, metricsSocketPath } = paths();
  const server = await startControlServer({
    ...{ socketPath, metricsSocketPath },
    logger: silentLogger(),
  });
  const { status, bytes } = await ask(metricsSocketPath, "/metrics");
  assert.equal([status, bytes.toString().split(":")[0]], [503, "STARTING"]);
  await server.close();
});

test("if the metrics socket cannot be created, the daemon serves anyway", async () => {
  const { socketPath, metricsSocketPath } = paths();
  writeFileSync(metricsSocketPath, "");
  const server = await startControlServer({
    ...{ socketPath, metricsSocketPath },
    logger: silentLogger(),
    control: new FakeDriver(),
  });
  assert.is((await ask(socketPath, "/v1/status")).status, 200);
  await server.close();
  assert.ok(existsSync(metricsSocketPath));
});

test("the control socket is not used as the metrics socket", async () => {
  const { socketPath } = paths();
  const server = await startControlServer({
    ...{ socketPath, metricsSocketPath: socketPath },
    logger: silentLogger(),
    control: new FakeDriver(),
  });
  assert.is((await ask(socketPath, "/v1/status")).status, 200);
  await server.close();
});

test.run();
