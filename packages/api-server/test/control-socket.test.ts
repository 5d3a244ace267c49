import { spawnSync } from "node:child_process";
import { existsSync, statSync } from "node:fs";
import { mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { lacksRoot, testUnless } from "@blksnap/testing";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { type ControlServer, startControlServer } from "../dist/server.js";
import { FakeDriver } from "../dist/testing/fake-driver.js";
import { ask, silentLogger } from "./control-harness.js";

function start(socketPath: string, group = "blksnap-no-such-group"): Promise<ControlServer> {
  const control = new FakeDriver();
  return startControlServer({ socketPath, logger: silentLogger(), control, group });
}

async function failureOf(starting: Promise<ControlServer>): Promise<string> {
  try {
    await (await starting).close();
    return "none";
  } catch (error) {
    return (error as { code: string }).code;
  }
}

/** A socket file without a listener, as a killed daemon leaves it. */
function leaveStale(path: string): void {
  const script = `require("net").createServer().listen(${JSON.stringify(path)},()=>process.kill(process.pid,9))`;
  spawnSync(process.execPath, ["-e", script]);
  assert.ok(statSync(path).isSocket());
}

let dir = "";
test.before.each(async () => {
  dir = await mkdtemp(join(tmpdir(), "blksnap-socket-"));
});
test.after.each(async () => {
  await rm(dir, { recursive: true, force: true });
});

test("without the group the socket is private; it is removed with the server", async () => {
  const path = join(dir, "new", "folder", "s.sock");
  const server = await start(path);
  assert.is(statSync(path).mode & 0o777, 0o600);
  assert.equal(await readdir(join(dir, "new", "folder")), ["s.sock"]);
  await server.close();
  assert.not.ok(existsSync(path));
});

testUnless(test, lacksRoot())(
  "if the group exists, the socket is open to root and the group",
  async () => {
    const path = join(dir, "s.sock");
    const server = await start(path, "daemon");
    const { mode, uid, gid } = statSync(path);
    assert.equal([mode & 0o777, uid, gid], [0o660, 0, 1]);
    await server.close();
  },
);

test("the socket of a dead daemon is replaced", async () => {
  const path = join(dir, "s.sock");
  leaveStale(path);
  const server = await start(path);
  assert.is((await ask(path, "/v1/version")).status, 200);
  await server.close();
  assert.equal(await readdir(dir), []);
});

test("leftovers of daemons that were killed while creating their socket are removed by the next one", async () => {
  const path = join(dir, "s.sock");
  // Greater than any process id of Linux; and the id of a live process.
  const [dead, alive] = [2 ** 22 + 1, process.pid].map((pid) => pid.toString(36));
  const kept = [`.b${alive}-AbC123`, "s.sock.old"];
  for (const name of [`.b${dead}-AbC123`, `.b${alive}-AbC123`]) await mkdir(join(dir, name));
  leaveStale(join(dir, `.b${dead}-AbC123`, "s"));
  leaveStale(`${path}.${dead}`);
  await writeFile(`${path}.old`, "somebody's");
  await (await start(path)).close();
  assert.equal((await readdir(dir)).sort(), kept);
});

test("a second daemon at the same socket is refused, and the first continues", async () => {
  const path = join(dir, "s.sock");
  const server = await start(path);
  assert.is(await failureOf(start(path)), "ALREADY_RUNNING");
  assert.is((await ask(path, "/v1/version")).status, 200);
  assert.equal(await readdir(dir), ["s.sock"]);
  await server.close();
});

test("of many daemons started at once over a stale socket, one wins", async () => {
  const path = join(dir, "s.sock");
  for (let round = 0; round < 5; round++) {
    leaveStale(path);
    const starts = await Promise.allSettled(Array.from({ length: 6 }, () => start(path)));
    const won = starts.filter((result) => result.status === "fulfilled");
    assert.is(won.length, 1);
    for (const result of starts) {
      if (result.status === "rejected") assert.is(result.reason.code, "ALREADY_RUNNING");
    }
    assert.is((await ask(path, "/v1/version")).status, 200);
    await won[0]!.value.close();
    assert.equal(await readdir(dir), []);
  }
});

test("a file that is not a socket is left alone", async () => {
  const path = join(dir, "s.sock");
  await writeFile(path, "mine");
  assert.is(await failureOf(start(path)), "SOCKET_FAILED");
  assert.equal(await readdir(dir), ["s.sock"]);
});

test("a socket path that is too long, or in a missing folder, is refused", async () => {
  assert.is(await failureOf(start(join(dir, "x".repeat(120)))), "SOCKET_FAILED");
  await writeFile(join(dir, "file"), "");
  assert.is(await failureOf(start(join(dir, "file", "s.sock"))), "SOCKET_FAILED");
});

test("closing does not remove the socket of a successor", async () => {
  const path = join(dir, "s.sock");
  const first = await start(path);
  await rm(path);
  const second = await start(path);
  await first.close();
  assert.is((await ask(path, "/v1/version")).status, 200);
  await second.close();
});

test.run();
