/** Points that are served over NBD, read by third-party programs and by the client. */
import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { NbdClient } from "@blksnap/nbd";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { CHUNK_BYTES } from "../dist/chunks.js";
import { exportToStore } from "../dist/export-store.js";
import type { PointServer } from "../dist/point-server.js";
import { PLACES } from "../dist/point-target.js";
import { servePoint } from "../dist/serve-point.js";
import { BackupStore } from "../dist/store.js";
import { optionsOf } from "./care-points.js";
import { FakeMachine, failureOf, MIB } from "./fake-machine.js";

const run = promisify(execFile);
const READS_IN_FLIGHT = 64;

interface Served {
  readonly machine: FakeMachine;
  readonly store: BackupStore;
  readonly server: PointServer;
  readonly socketPath: string;
  readonly content: Buffer;
  readonly notes: string[];
}

/** The first of two points of a device that has changed in between. */
async function served(machine: FakeMachine): Promise<Served> {
  const content = Buffer.from(machine.content);
  const store = await BackupStore.openOrCreate(machine.path("store"));
  const point = await exportToStore(store, optionsOf(machine));
  machine.write(0, randomBytes(MIB));
  await exportToStore(store, optionsOf(machine));
  const notes: string[] = [];
  const socketPath = machine.path("socket");
  const onNote = (text: string) => notes.push(text);
  const server = await servePoint({ store, point, socketPath, onNote });
  return { machine, store, server, socketPath, content, notes };
}

async function ended({ server, machine, socketPath }: Served): Promise<void> {
  await server.stop();
  await server.ended;
  assert.not(existsSync(socketPath));
  machine.remove();
}

test("third-party programs read a point, and skip zeros", async () => {
  const machine = new FakeMachine(4 * CHUNK_BYTES + 512);
  machine.write(CHUNK_BYTES - MIB, randomBytes(2 * MIB));
  machine.write(4 * CHUNK_BYTES, randomBytes(512));
  const all = await served(machine);
  const { server, content } = all;
  const { stdout: map } = await run("nbdinfo", ["--map", server.uri]);
  const rows = map.trimEnd().split("\n");
  assert.equal(
    rows.map((row) => row.trim().split(/ +/).slice(0, 3).map(Number)),
    [
      [0, 2 * CHUNK_BYTES, 0],
      [2 * CHUNK_BYTES, 2 * CHUNK_BYTES, 3],
      [4 * CHUNK_BYTES, 512, 0],
    ],
  );
  writeFileSync(machine.path("content"), content);
  await run("qemu-img", ["compare", "-f", "raw", "-F", "raw", machine.path("content"), server.uri]);
  await run("nbdcopy", [server.uri, machine.path("copy")]);
  await run("cmp", [machine.path("copy"), machine.path("content")]);
  const written = await run("qemu-io", ["-f", "raw", "-c", "write 0 512", server.uri]).then(
    () => true,
    () => false,
  );
  assert.not(written);
  assert.equal(all.notes, []);
  await ended(all);
});

test("more chunks than slots are read, in any order and many at a time", async () => {
  const machine = new FakeMachine((PLACES + 4) * CHUNK_BYTES);
  for (let chunk = 0; chunk < PLACES + 4; chunk++) {
    if (chunk !== 5) machine.write(chunk * CHUNK_BYTES + 512 * chunk, randomBytes(4096));
  }
  const all = await served(machine);
  const client = await NbdClient.connect(all.server.uri);
  // Each crosses the border of two chunks.
  const lanes = Array.from({ length: READS_IN_FLIGHT }, async (_, lane) => {
    for (let round = 1; round < PLACES + 4; round++) {
      const edge = (1 + ((lane * 7 + round) % (PLACES + 3))) * CHUNK_BYTES;
      const found = await client.read(edge - 65_536, 131_072 + 512 * lane);
      assert.ok(all.content.subarray(edge - 65_536, edge + 65_536 + 512 * lane).equals(found));
    }
  });
  await Promise.all(lanes);
  await client.close();
  await ended(all);
});

test("a damaged chunk fails only its reads, is reported by name, and is checked again later", async () => {
  const machine = new FakeMachine(3 * CHUNK_BYTES);
  for (const chunk of [0, 1, 2]) machine.write(chunk * CHUNK_BYTES, randomBytes(MIB));
  const all = await served(machine);
  const { store, server, content, notes } = all;
  const [point] = await store.points();
  const hash = point!.chunks[1]!;
  const folder = join(store.path, "chunks", hash.slice(0, 2));
  const path = join(folder, readdirSync(folder).find((name) => name.startsWith(hash))!);
  const whole = readFileSync(path);
  writeFileSync(path, "torn");
  const client = await NbdClient.connect(server.uri);
  const failed = await failureOf(client.read(CHUNK_BYTES, 4096));
  assert.is(failed.code, "REQUEST_FAILED");
  assert.match(notes.join(), `${path} is damaged`);
  assert.match(notes.join(), `bytes ${CHUNK_BYTES} to ${2 * CHUNK_BYTES} of ${machine.device}`);
  assert.ok(content.subarray(0, 4096).equals(await client.read(0, 4096)));
  assert.is((await failureOf(client.read(CHUNK_BYTES - 512, 1024))).code, "REQUEST_FAILED");
  assert.is(notes.length, 2);
  writeFileSync(path, whole);
  const found = await client.read(CHUNK_BYTES - 512, 1024);
  assert.ok(content.subarray(CHUNK_BYTES - 512, CHUNK_BYTES + 512).equals(found));
  await client.close();
  await ended(all);
});

test("a server ends despite readers, and two cannot share a socket", async () => {
  const machine = new FakeMachine(8 * CHUNK_BYTES);
  for (let chunk = 0; chunk < 8; chunk++) machine.write(chunk * CHUNK_BYTES, randomBytes(MIB));
  const all = await served(machine);
  const { store, server, socketPath } = all;
  const [point] = await store.points();
  const second = await failureOf(servePoint({ store, point: point!, socketPath }));
  assert.is(second.code, "TARGET_EXISTS");
  const nowhere = machine.path("none/socket");
  const third = await failureOf(servePoint({ store, point: point!, socketPath: nowhere }));
  assert.is(third.code, "TARGET_FAILED");
  const client = await NbdClient.connect(server.uri);
  const reads = Array.from({ length: 8 }, (_, chunk) =>
    client.read(chunk * CHUNK_BYTES, 4096).catch(() => undefined),
  );
  await server.stop();
  await Promise.all(reads);
  await client.close();
  await ended(all);
});

test("if its thread cannot be started, its socket is gone", async () => {
  const machine = new FakeMachine(MIB);
  const store = await BackupStore.openOrCreate(machine.path("store"));
  const point = await exportToStore(store, optionsOf(machine));
  const socketPath = machine.path("socket");
  // A thread cannot be given a function.
  const id = (() => undefined) as never;
  const starting = servePoint({ store, point: { ...point, id }, socketPath });
  assert.is((await failureOf(starting)).code, "INTERNAL");
  assert.not(existsSync(socketPath));
  machine.remove();
});

test.run();
