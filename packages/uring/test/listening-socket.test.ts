import { createSocket } from "node:dgram";
import { closeSync, openSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { join } from "node:path";
import { listeningSocket, listenLocal, socketPair, UringError } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { withFolder } from "./support.js";

const EBADF = 9;
const EINVAL = 22;
const ENOTSOCK = 88;

function refuses(fd: number, errno: number): void {
  const isRight = (error: unknown): boolean =>
    error instanceof UringError && error.code === "NOT_LISTENING" && error.errno === errno;
  assert.throws(() => listeningSocket(fd), isRight);
}

async function listeningAt(address: string): Promise<Server> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, address, resolve));
  return server;
}

test("a listening unix socket is found by its path, whatever characters it has", () =>
  withFolder((folder) => {
    const path = join(folder, "two  words :.sock");
    const fd = listenLocal(path, 0o600);
    assert.equal(listeningSocket(fd), { family: "unix", path });
    closeSync(fd);
  }));

test("a listening TCP socket has its address and port", async () => {
  for (const address of ["127.0.0.1", "0.0.0.0", "::1", "::"]) {
    const server = await listeningAt(address);
    const { fd } = (server as Server & { _handle: { fd: number } })._handle;
    const { port } = server.address() as { port: number };
    assert.equal(listeningSocket(fd), { family: "tcp", address, port });
    server.close();
  }
});

test("descriptors that do not listen are refused: a file, a connected socket, a datagram socket, nothing", async () => {
  withFolder((folder) => {
    const file = openSync(join(folder, "file"), "w");
    refuses(file, ENOTSOCK);
    closeSync(file);
  });
  const [one, other] = socketPair();
  refuses(one, EINVAL);
  closeSync(one);
  closeSync(other);
  const datagrams = createSocket("udp4");
  await new Promise<void>((resolve) => datagrams.bind(0, "127.0.0.1", resolve));
  const { fd } = (datagrams as unknown as Record<symbol, { handle: { fd: number } }>)[
    Object.getOwnPropertySymbols(datagrams).find(
      (it) => it.description === "state symbol",
    ) as symbol
  ]?.handle ?? { fd: -1 };
  refuses(fd, EINVAL);
  datagrams.close();
  refuses(1 << 20, EBADF);
});

test.run();
