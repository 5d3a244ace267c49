/** Servers at sockets that another process has created, like a service manager. */
import { spawn } from "node:child_process";
import { closeSync, fstatSync, openSync, statSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { NbdClient, NbdServer, type NbdServerOptions } from "@blksnap/nbd";
import { listenLocal, socketPair } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { MIB, ramDisk, rejectsWith, withFolder } from "./support.js";

const EBADF = 9;
const EINVAL = 22;
const ENOTSOCK = 88;
const program = fileURLToPath(new URL("./given-tcp.js", import.meta.url));

const serve = (options: Partial<NbdServerOptions>): Promise<NbdServer> =>
  NbdServer.start({ exports: [ramDisk(MIB)], ...options });

test("clients that connected before the server are served, and its end leaves the socket's file", () =>
  withFolder(async (folder) => {
    const socketPath = join(folder, "nbd.sock");
    const listenFd = listenLocal(socketPath, 0o600);
    const { ino } = statSync(socketPath);
    const early = NbdClient.connect(`nbd+unix:///disk?socket=${socketPath}`);
    const server = await serve({ listenFd });
    assert.is(server.socketPath, socketPath);
    await (await early).close();
    const client = await NbdClient.connect(server.uri("disk"));
    await client.write(0, Buffer.alloc(4096, 7));
    assert.is((await client.read(0, 4096))[0], 7);
    await client.close();
    await server.stop();
    assert.is(statSync(socketPath).ino, ino);
    assert.throws(() => fstatSync(listenFd), /EBADF/);
  }));

test("a limit on connections holds there, too", () =>
  withFolder(async (folder) => {
    const listenFd = listenLocal(join(folder, "nbd.sock"), 0o600);
    const server = await serve({ listenFd, settings: { connectionsMax: 1 } });
    const client = await NbdClient.connect(server.uri("disk"));
    await rejectsWith(NbdClient.connect(server.uri("disk")), "CONNECTION_LOST");
    await client.close();
    await server.stop();
  }));

test("a descriptor that is no listening unix socket is refused with a named error, and stays the caller's", () =>
  withFolder(async (folder) => {
    const file = openSync(join(folder, "file"), "w");
    const [end, other] = socketPair();
    await rejectsWith(serve({ listenFd: file }), "LISTEN_FAILED", ENOTSOCK);
    await rejectsWith(serve({ listenFd: end }), "LISTEN_FAILED", EINVAL);
    await rejectsWith(serve({ listenFd: 1 << 20 }), "LISTEN_FAILED", EBADF);
    for (const fd of [file, end, other]) closeSync(fd);
    const listenFd = listenLocal(join(folder, "nbd.sock"), 0o600);
    await rejectsWith(serve({ listenFd, socketPath: join(folder, "b.sock") }), "LISTEN_FAILED");
    await rejectsWith(serve({}), "LISTEN_FAILED");
    closeSync(listenFd);
  }));

function listening(address: string): Promise<Server> {
  return new Promise((resolve) => {
    const server = createServer();
    server.listen(0, address, () => resolve(server));
  });
}

/** The process has a duplicate: once this one is closed no other process accepts. */
async function runAt(address: string, certificates: string): Promise<void> {
  const server = await listening(address);
  const { fd } = (server as Server & { _handle: { fd: number } })._handle;
  const child = spawn(process.execPath, [program, certificates], {
    stdio: ["ignore", "ignore", "pipe", fd],
  });
  server.close();
  const ended = new Promise((resolve) => child.once("exit", resolve));
  assert.is(await text(child.stderr as NodeJS.ReadableStream), "");
  assert.is(await ended, 0);
}

test("clients are accepted at a TCP socket with TLS", () => runAt("127.0.0.1", "tls"));
test("without TLS, clients are accepted only at loopback", async () => {
  await runAt("127.0.0.1", "none");
  await runAt("0.0.0.0", "refused");
  await runAt("::", "refused");
});

test.run();
