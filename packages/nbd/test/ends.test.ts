/** How servers end: their leftovers, and what clients see. */
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { NbdClient, NbdServer } from "@blksnap/nbd";
import { eventually } from "@blksnap/testing";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { oddTarget } from "./odd-target.js";
import {
  MIB,
  RawClient,
  ramDisk,
  rejectsWith,
  request,
  withFolder,
  withServer,
} from "./support.js";

/** Whether a socket is open that was bound to this path, also where its file is gone. */
function isListening(socketPath: string): boolean {
  return readFileSync("/proc/net/unix", "utf8").includes(`${socketPath}\n`);
}

test("a server whose socket file is gone is stopped", async () => {
  await withFolder(async (folder) => {
    const socketPath = join(folder, "socket");
    const server = await NbdServer.start({ socketPath, exports: [ramDisk(MIB)] });
    const client = await NbdClient.connect(server.uri("disk"));
    rmSync(socketPath);
    await server.stop();
    await server.ended;
    await rejectsWith(client.read(0, 512), "CONNECTION_LOST");
    assert.not(isListening(socketPath));
  });
});

test("a stopped server leaves the socket of its successor", async () => {
  await withFolder(async (folder) => {
    const socketPath = join(folder, "socket");
    const first = await NbdServer.start({ socketPath, exports: [ramDisk(MIB)] });
    rmSync(socketPath);
    const second = await NbdServer.start({ socketPath, exports: [ramDisk(2 * MIB)] });
    await first.stop();
    const client = await NbdClient.connect(second.uri("disk"));
    assert.is(client.sizeBytes, 2 * MIB);
    await client.close();
    await second.stop();
    assert.not(existsSync(socketPath));
  });
});

test("if a target cannot be opened, nothing is left: neither the socket nor opened targets", async () => {
  await withFolder(async (folder) => {
    const socketPath = join(folder, "socket");
    const closedPath = join(folder, "closed");
    const exports = [
      { name: "good", target: oddTarget({ kind: "plain", closedPath }) },
      { name: "bad", target: oddTarget({ kind: "open-throws" }) },
    ];
    await rejectsWith(NbdServer.start({ socketPath, exports }), "SERVER_FAILED");
    assert.ok(existsSync(closedPath));
    assert.not(existsSync(socketPath));
    await eventually("the socket is closed", () => !isListening(socketPath));
  });
});

test("clients see the end of a server whose thread ends by itself", async () => {
  await withFolder(async (folder) => {
    const socketPath = join(folder, "socket");
    const errors: Error[] = [];
    const server = await NbdServer.start({
      socketPath,
      exports: [{ name: "disk", target: oddTarget({ kind: "thread-ends" }) }],
      onError: (error) => errors.push(error),
    });
    const idle = new RawClient(socketPath);
    await idle.begin("disk", true);
    const client = new RawClient(socketPath);
    await client.begin("disk", true);
    client.send(request({ type: 0, length: 512 }));
    await server.ended;
    await Promise.all([idle.untilClosed(), client.untilClosed()]);
    assert.is(errors.length, 1);
    await eventually("the socket is closed", () => !isListening(socketPath));
    await server.stop();
    assert.not(existsSync(socketPath));
  });
});

test("a connection that a target ends while it waits for a slot does not affect the others", async () => {
  const settings = { queueDepth: 4, maxIoBytes: 64 << 10, connectionsMax: 2 };
  const odd = { name: "disk", readOnly: false, target: oddTarget({ kind: "answers-others" }) };
  await withServer(
    [odd],
    async (server) => {
      const flusher = new RawClient(server.socketPath);
      await flusher.begin("disk", false);
      const reader = new RawClient(server.socketPath);
      await reader.begin("disk", false);
      // In one message: the third arrives when the target gets the second.
      flusher.send(...[1n, 2n, 3n].map((cookie) => request({ type: 3, cookie })));
      reader.send(request({ type: 0, length: 128 << 10 }));
      // A simple reply whose first part succeeded cannot end otherwise.
      await reader.untilClosed();
      await flusher.reader.read(3 * 16);
      // More than there are slots: they wait.
      const count = 20;
      for (let left = count; left > 0; left--) flusher.send(request({ type: 3 }));
      await flusher.reader.read(count * 16);
      flusher.socket.destroy();
    },
    settings,
  );
});

/** Number of requests that a withholding target has received. */
function keptOf(folder: string): number {
  const path = join(folder, "have");
  return existsSync(path) ? Number(readFileSync(path, "utf8")) : 0;
}

test("a stopped server finishes pending requests, and no others", async () => {
  await withFolder(async (folder) => {
    const socketPath = join(folder, "socket");
    const server = await NbdServer.start({
      socketPath,
      exports: [{ name: "disk", readOnly: false, target: oddTarget({ kind: "kept", folder }) }],
      settings: { endTimeoutMs: 600_000 },
    });
    const idle = new RawClient(socketPath);
    await idle.begin("disk", true);
    const client = await NbdClient.connect(server.uri("disk"));
    const asked = [client.read(0, 4096), client.write(4096, Buffer.alloc(4096)), client.flush()];
    await eventually("all three are there", () => keptOf(folder) === 3);
    const stopping = server.stop();
    // A client without pending requests learns of it at once.
    await idle.untilClosed();
    const late = client.read(0, 4096).catch((error: unknown) => error);
    writeFileSync(join(folder, "release"), "");
    await Promise.all(asked);
    assert.match(String(await late), /CONNECTION_LOST|closed the connection|ECONNRESET/);
    await stopping;
    assert.is(keptOf(folder), 3);
  });
});

test("a client that is destroyed waits for no answer, and another one is served", async () => {
  await withFolder(async (folder) => {
    const socketPath = join(folder, "socket");
    const disk = { name: "disk", readOnly: false, target: oddTarget({ kind: "kept", folder }) };
    const server = await NbdServer.start({ socketPath, exports: [disk] });
    const client = await NbdClient.connect(server.uri("disk"));
    const asked = client.read(0, 4096).catch(({ code }) => code);
    await eventually("it is there", () => keptOf(folder) === 1);
    client.destroy();
    client.destroy();
    assert.is(await asked, "CONNECTION_LOST");
    await client.close();
    writeFileSync(join(folder, "release"), "");
    const other = await NbdClient.connect(server.uri("disk"));
    await other.flush();
    await other.close();
    await server.stop();
  });
});

test("a client that reads no replies, or does not send its payload, does not hold up the end of a server", async () => {
  const settings = { endTimeoutMs: 50 };
  await withServer(
    [ramDisk(MIB)],
    async (server) => {
      const deaf = new RawClient(server.socketPath);
      await deaf.begin("disk", true);
      deaf.socket.pause();
      for (let left = 64; left > 0; left--) deaf.send(request({ type: 0, length: MIB }));
      const mute = new RawClient(server.socketPath);
      await mute.begin("disk", true);
      mute.send(request({ type: 1, length: MIB }), Buffer.alloc(512));
      await server.stop();
      await mute.untilClosed();
      deaf.socket.destroy();
    },
    settings,
  );
});

test.run();
