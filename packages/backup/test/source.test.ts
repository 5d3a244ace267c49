/** Images that are read over NBD, from a third-party server. */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pipeline } from "node:stream";
import { setTimeout as later } from "node:timers/promises";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { exportRaw } from "../dist/export-raw.js";
import { exportToStore } from "../dist/export-store.js";
import { type ImageReader, openImage } from "../dist/source.js";
import { BackupStore } from "../dist/store.js";
import { assertSame, FakeMachine, failureOf, MIB } from "./fake-machine.js";

interface World {
  folder: string;
  content: Buffer;
  uri: string;
  server: ChildProcess;
}

const test = suite<World>("source");

/** Longer than a request may be, and not a multiple of anything larger than a sector. */
const SIZE_BYTES = 33 * MIB + 512;

const ROUNDS_MAX = 50;

/** Magic of requests, and of those with extended headers. */
const REQUEST_MAGICS = ["25609513", "21e41c71"].map((hex) => Buffer.from(hex, "hex"));

/** Its socket appears a moment before it listens. */
async function isListening(socket: string): Promise<boolean> {
  const connection = connect(socket);
  const answer = once(connection, "connect").then(
    () => true,
    () => false,
  );
  return await answer.finally(() => connection.destroy());
}

async function serve(path: string, socket: string): Promise<ChildProcess> {
  const words = ["--read-only", "--persistent", "--shared=8", "--format=raw"];
  const server = spawn("qemu-nbd", [...words, `--socket=${socket}`, path], { stdio: "ignore" });
  while (!(await isListening(socket))) {
    assert.is(server.exitCode, null, "qemu-nbd has ended");
    await later(5);
  }
  return server;
}

test.before.each(async (world) => {
  world.folder = mkdtempSync(join(tmpdir(), "blksnap-source-"));
  world.content = randomBytes(SIZE_BYTES);
  writeFileSync(join(world.folder, "image"), world.content);
  const socket = join(world.folder, "socket");
  world.server = await serve(join(world.folder, "image"), socket);
  world.uri = `nbd+unix:///?socket=${socket}`;
});

test.after.each(async ({ folder, server }) => {
  if (server.exitCode === null && server.signalCode === null) {
    server.kill();
    await once(server, "exit");
  }
  rmSync(folder, { recursive: true });
});

test("an export is read in pieces of any size, many at once", async ({ uri, content }) => {
  const image = await openImage(uri);
  const ranges: [offsetBytes: number, lengthBytes: number][] = [
    [0, SIZE_BYTES],
    [SIZE_BYTES - 512, 512],
    [MIB, 0],
    [4096, 4 * MIB],
  ];
  const read = ranges.map(async ([offsetBytes, lengthBytes]) => {
    const data = Buffer.alloc(lengthBytes);
    await image.read(data, offsetBytes);
    assert.ok(data.equals(content.subarray(offsetBytes, offsetBytes + lengthBytes)));
  });
  await Promise.all(read);
  await image.sync();
  await image.close();
});

/** A proxy between the image's readers and the server that counts connections. */
async function proxyOf(
  { folder, uri }: World,
  carry: (connection: Socket, up: Socket, count: number) => void,
) {
  const server = join(folder, "socket");
  const path = join(folder, "between");
  let count = 0;
  const between = createServer((connection) => carry(connection, connect(server), ++count));
  between.listen(path);
  await once(between, "listening");
  return {
    uri: uri.replace(server, path),
    count: () => count,
    close: () => between.close(),
  };
}

/** Reads the beginning of the image, one read after the other. */
async function readPart(image: ImageReader, content: Buffer): Promise<void> {
  const data = Buffer.alloc(MIB);
  for (let at = 0; at < 8 * MIB; at += MIB) {
    await image.read(data, at);
    assert.ok(data.equals(content.subarray(at, at + MIB)));
  }
}

test("concurrent reads use several connections", async (world) => {
  const proxy = await proxyOf(world, (connection, up) => {
    pipeline(connection, up, connection, () => undefined);
  });
  const image = await openImage(proxy.uri);
  const read = () => readPart(image, world.content);
  await read();
  assert.is(proxy.count(), 1, "one read at a time needs one");
  // Each has others in flight when it begins; when a further connection is ready depends on the server.
  for (let round = 0; round < ROUNDS_MAX && proxy.count() < 4; round++) {
    await Promise.all([read(), read(), read(), read(), read()]);
  }
  await image.close();
  assert.is(proxy.count(), 4);
  proxy.close();
});

test("connections that a server closes after their handshake are not used for reads", async (world) => {
  const proxy = await proxyOf(world, (connection, up, count) => {
    pipeline(up, connection, () => up.destroy());
    connection.on("data", (data) => {
      // A transmission request: the handshake is over.
      if (count === 1 || !REQUEST_MAGICS.some((magic) => data.includes(magic))) up.write(data);
      else connection.destroy();
    });
  });
  const image = await openImage(proxy.uri);
  const read = () => readPart(image, world.content);
  await Promise.all([read(), read(), read()]);
  await image.close();
  assert.is(proxy.count(), 2, "the first one that ends is the last one that is tried");
  proxy.close();
});

test("the end of the image or of its server fails the read", async ({ uri, server }) => {
  const image = await openImage(uri);
  const past = await failureOf(image.read(Buffer.alloc(4096), SIZE_BYTES - 512));
  assert.is(past.code, "IMAGE_FAILED");
  server.kill("SIGKILL");
  await once(server, "exit");
  const lost = await failureOf(image.read(Buffer.alloc(4096), 0));
  assert.is(lost.code, "IMAGE_FAILED");
  assert.match(lost.message, "at byte 0");
  await image.close();
  assert.is((await failureOf(openImage(uri))).code, "IMAGE_FAILED");
});

test("a raw copy is made of an image that is an export", async ({ folder }) => {
  const machine = new FakeMachine(4 * MIB);
  machine.write(0, randomBytes(MIB));
  const { client, device } = machine;
  const own = { client, device, stores: ["/var/tmp"], limitBytes: MIB, host: "here" };
  const target = machine.path("copy");
  let server: ChildProcess | undefined;
  const open = async (path: string) => {
    server = await serve(path, join(folder, "of-machine"));
    return openImage(`nbd+unix:///?socket=${join(folder, "of-machine")}`);
  };
  await exportRaw({ ...own, wanted: { kind: "auto" }, target, open });
  await assertSame(target, machine.content);
  assert.ok(server !== undefined);
  // It removes its socket, but not while the folder is being removed.
  const ended = once(server, "exit");
  server.kill();
  await ended;
  machine.remove();
});

test("a full copy reads only what the export says holds data, and the rest is zeros", async ({
  folder,
}) => {
  const machine = new FakeMachine(16 * MIB);
  machine.write(5 * MIB, randomBytes(MIB));
  machine.write(15 * MIB, randomBytes(MIB));
  const { client, device } = machine;
  const own = { client, device, stores: ["/var/tmp"], limitBytes: MIB, host: "here" };
  const servers: ChildProcess[] = [];
  const open = async (path: string) => {
    const socket = join(folder, `of-machine-${servers.length}`);
    execFileSync("cp", ["--sparse=always", path, `${path}.sparse`]);
    servers.push(await serve(`${path}.sparse`, socket));
    return openImage(`nbd+unix:///?socket=${socket}`);
  };
  const options = { ...own, wanted: { kind: "auto" as const }, open };
  const target = machine.path("copy");
  const raw = await exportRaw({ ...options, target });
  await assertSame(target, machine.content);
  assert.is(raw.read_bytes, 2 * MIB);
  const totals: number[] = [];
  const onPlan = ({ total_bytes }: { total_bytes: number }) => totals.push(total_bytes);
  const store = await BackupStore.openOrCreate(machine.path("store"));
  const point = await exportToStore(store, { ...options, onPlan });
  assert.is(point.read_bytes, 2 * MIB);
  assert.equal(totals, [2 * MIB]);
  assert.is(point.chunks.filter((hash) => hash !== null).length, 2);
  // With the export beside it, and without.
  const [uri] = [`nbd+unix:///?socket=${join(folder, "of-machine-0")}`];
  const beside = await openImage(machine.image, uri);
  const empty = await beside.emptyRanges();
  assert.equal(
    empty.map(({ offset_bytes }) => offset_bytes),
    [0, 6 * MIB],
  );
  for (const server of servers) server.kill("SIGKILL");
  await Promise.all(servers.map((server) => once(server, "exit")));
  assert.equal(await beside.emptyRanges(), []);
  await beside.close();
  machine.remove();
});

test.run();
