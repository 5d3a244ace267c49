import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";
import { lacksRoot, testUnless } from "@blksnap/testing";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { BlksnapClient } from "../dist/client.js";
import { failureOf, startHarness } from "./harness.js";

let dir = "";
test.before(async () => {
  dir = await mkdtemp(join(tmpdir(), "blksnap-connection-"));
});
test.after(() => rm(dir, { recursive: true }));

let servers = 0;
/** A server that responds to each connection with these bytes, and then closes it or waits. */
async function answering(
  bytes: string,
  closes: boolean,
): Promise<{ server: Server; path: string }> {
  const path = join(dir, `server-${servers++}`);
  const server = createServer((socket) => {
    socket.on("error", () => undefined);
    socket.once("data", () => (closes ? socket.end(bytes) : socket.write(bytes)));
  });
  await new Promise<void>((done) => server.listen(path, done));
  return { server, path };
}

async function codeAgainst(bytes: string, closes: boolean, timeoutMs = 200_000): Promise<string> {
  const { server, path } = await answering(bytes, closes);
  const { code } = await failureOf(new BlksnapClient({ socketPath: path, timeoutMs }).version());
  server.close();
  return code;
}

test("a missing or dead socket is DAEMON_NOT_RUNNING", async () => {
  const missing = await failureOf(new BlksnapClient({ socketPath: join(dir, "none") }).version());
  assert.is(missing.code, "DAEMON_NOT_RUNNING");
  assert.match(missing.hint, "blksnapd");
  await writeFile(join(dir, "plain"), "");
  const plain = await failureOf(new BlksnapClient({ socketPath: join(dir, "plain") }).version());
  assert.is(plain.code, "DAEMON_NOT_RUNNING");
});

for (const name of ["STARTING", "SHUTTING_DOWN"]) {
  test(`a call waits for a daemon that is ${name}, and reports that once`, async () => {
    const path = join(dir, "late.sock");
    let told = 0;
    const client = new BlksnapClient({ socketPath: path, waitMs: 60_000, onWait: () => told++ });
    const asked = client.version();
    while (told === 0) await new Promise((done) => setTimeout(done, 1));
    const body = JSON.stringify({ error: { name, message: "not yet" } });
    const head = `content-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}`;
    let asks = 0;
    const server = createServer((socket) => {
      socket.once("data", () => {
        const isReady = ++asks > 2;
        const version = 'HTTP/1.1 200 OK\r\ncontent-length: 16\r\n\r\n{"daemon":"9.9"}';
        socket.end(isReady ? version : `HTTP/1.1 503 Busy\r\n${head}\r\n\r\n${body}`);
      });
    });
    await new Promise<void>((done) => server.listen(path, done));
    assert.equal([(await asked).daemon, told, asks], ["9.9", 1, 3]);
    server.close();
  });
}

test("a wait for a daemon that times out or is cancelled fails with that reason", async () => {
  const socketPath = join(dir, "never.sock");
  const inVain = await failureOf(new BlksnapClient({ socketPath, waitMs: 60 }).version());
  assert.is(inVain.code, "DAEMON_NOT_RUNNING");
  const controller = new AbortController();
  const client = new BlksnapClient({
    socketPath,
    waitMs: 60_000,
    onWait: () => controller.abort(),
  });
  assert.is((await failureOf(client.version({ signal: controller.signal }))).code, "ABORTED");
});

test("foreign responses are recognised", async () => {
  const head = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n";
  assert.is(await codeAgainst("", true), "CONNECTION_LOST");
  assert.is(await codeAgainst("SSH-2.0\r\n", true), "SOCKET_FAILED");
  assert.is(await codeAgainst(`${head}{"a`, true), "CONNECTION_LOST");
  assert.is(await codeAgainst(`${head}hello`, true), "RESPONSE_INVALID");
  assert.is(
    await codeAgainst("HTTP/1.1 418 Teapot\r\ncontent-length: 2\r\n\r\n{}", true),
    "RESPONSE_INVALID",
  );
  assert.is(await codeAgainst("", false, 50), "TIMEOUT");
  assert.is(await codeAgainst(`${head}{"a`, false, 50), "TIMEOUT");
});

test("a cancelled caller learns what may continue, without reference to missing options", async () => {
  const { server, path } = await answering("", false);
  const error = await failureOf(new BlksnapClient({ socketPath: path, timeoutMs: 50 }).version());
  server.close();
  assert.is(error.message, "no answer within 0.05 s");
  assert.match(error.hint, "may still finish it: see blksnapctl status");
  assert.not.match(error.hint, "--");
});

testUnless(test, lacksRoot())(
  "a socket that another user may not open is SOCKET_NOT_PERMITTED",
  async () => {
    const { socketPath, stop } = await startHarness();
    const module = pathToFileURL(join(import.meta.dirname, "../dist/index.js")).href;
    const script =
      `const { BlksnapClient } = await import(${JSON.stringify(module)});` +
      // Dropped after the import, because only its owner may be able to read the checkout.
      "process.setgroups([]); process.setgid(65534); process.setuid(65534);" +
      `try { await new BlksnapClient({ socketPath: ${JSON.stringify(socketPath)} }).version(); }` +
      "catch (error) { console.log(error.code, error.errno, error.hint); }";
    const run = spawnSync(process.execPath, ["--input-type=module", "-e", script], {
      encoding: "utf8",
    });
    await stop();
    assert.match(run.stdout, /^SOCKET_NOT_PERMITTED 13 .*group blksnap/, run.stderr);
  },
);

/** All imports of a module of ours, its own and those of modules that it imports. */
function importsOf(file: string, seen: Set<string> = new Set()): Set<string> {
  for (const [, name] of readFileSync(file, "utf8").matchAll(/(?:from|import) ?\(?"([^"]+)"/g)) {
    if (name === undefined || seen.has(name)) continue;
    if (!name.startsWith(".")) seen.add(name);
    else importsOf(join(dirname(file), name), seen);
  }
  return seen;
}

test("the client pulls in nothing but the API, the errors and node", () => {
  const names = [...importsOf(join(import.meta.dirname, "../dist/index.js"))];
  assert.ok(names.includes("@blksnap/api") && names.includes("node:http"), names.join(" "));
  const ours = ["@blksnap/api", "@blksnap/errors"];
  const others = names.filter((name) => !ours.includes(name) && !name.startsWith("node:"));
  assert.equal(others, []);
});

test.run();
