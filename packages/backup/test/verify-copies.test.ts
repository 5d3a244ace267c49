/** What verify finds in raw copies and in qcow2 files: each byte that has changed since, by its place. */
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import {
  chmodSync,
  closeSync,
  openSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { PassThrough } from "node:stream";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { exportQcow2, type Qcow2Export } from "../dist/export-qcow2.js";
import { exportRaw } from "../dist/export-raw.js";
import { exportStream } from "../dist/export-stream.js";
import { OpenQcow2 } from "../dist/qemu.js";
import { recordPathOf } from "../dist/raw-record.js";
import { restoreStream } from "../dist/restore-stream.js";
import { Sums, sumsOf, wholeBlocks } from "../dist/sums.js";
import { verifyQcow2, verifyRaw } from "../dist/verify-copies.js";
import { FakeMachine, failureOf, MIB } from "./fake-machine.js";

const BLOCK_BYTES = 65_536;
const CAPACITY_BYTES = 8 * MIB + 3 * BLOCK_BYTES + 512;

/** As a disk that changes it by itself: nothing tells of a write. */
function flipByte(path: string, at: number): void {
  const { atime, mtime, mode } = statSync(path);
  chmodSync(path, 0o600);
  const file = openSync(path, "r+");
  const byte = Buffer.alloc(1);
  readSync(file, byte, 0, 1, at);
  byte[0]! ^= 0x10;
  writeSync(file, byte, 0, 1, at);
  closeSync(file);
  chmodSync(path, mode);
  utimesSync(path, atime, mtime);
}

function own({ client, device }: FakeMachine) {
  const wanted = { kind: "auto" } as const;
  return { client, device, stores: ["/var/tmp"], limitBytes: MIB, host: "here", wanted };
}

async function rawExported(machine: FakeMachine): Promise<string> {
  const target = machine.path("copy");
  await exportRaw({ ...own(machine), target });
  return target;
}

function change(machine: FakeMachine): void {
  machine.write(3 * MIB, randomBytes(2 * BLOCK_BYTES));
  machine.write(CAPACITY_BYTES - 700, randomBytes(700));
  machine.discard(MIB, BLOCK_BYTES);
}

test("a flipped byte is found in each block of a raw copy, full or updated", async () => {
  const machine = new FakeMachine(CAPACITY_BYTES);
  machine.write(0, randomBytes(5 * MIB));
  const target = await rawExported(machine);
  const whole = { points: 1, checked_bytes: CAPACITY_BYTES, damaged: [], notes: [] };
  assert.equal(await verifyRaw({ target }), whole);
  change(machine);
  await rawExported(machine);
  assert.equal(await verifyRaw({ target }), whole);
  // Of the full export, of the incremental one, of zeros, and of the last block, which is short.
  const places = [70_000, 3 * MIB + 1, MIB + 5, CAPACITY_BYTES - 1];
  for (const at of places) {
    flipByte(target, at);
    const { damaged } = await verifyRaw({ target });
    flipByte(target, at);
    assert.is(damaged.length, 1, `byte ${at}`);
    const { path, offset_bytes, length_bytes } = damaged[0]!;
    assert.is(path, target);
    assert.is(offset_bytes, Math.floor(at / BLOCK_BYTES) * BLOCK_BYTES);
    assert.ok(at < offset_bytes + length_bytes && length_bytes <= BLOCK_BYTES);
  }
  assert.equal((await verifyRaw({ target })).damaged, []);
  machine.remove();
});

test("also in a copy made by a stream", async () => {
  const machine = new FakeMachine(CAPACITY_BYTES);
  machine.write(0, randomBytes(5 * MIB));
  const target = machine.path("piped");
  for (const wanted of [{ kind: "full" }, { kind: "since", number: 1 }] as const) {
    const input = new PassThrough();
    const sink = {
      write: async (data: Uint8Array) => void input.write(Buffer.from(data)),
      end: async () => void input.end(),
    };
    const sent = exportStream({ ...own(machine), wanted, sink });
    await Promise.all([restoreStream({ input, target }), sent]);
    const { damaged, checked_bytes } = await verifyRaw({ target });
    assert.equal([damaged, checked_bytes], [[], CAPACITY_BYTES]);
    change(machine);
  }
  flipByte(target, 3 * MIB);
  assert.is((await verifyRaw({ target })).damaged[0]?.offset_bytes, 3 * MIB);
  machine.remove();
});

test("a copy that is incomplete, missing, unknown or modified is reported by name", async () => {
  const machine = new FakeMachine(CAPACITY_BYTES);
  const target = await rawExported(machine);
  const codeOf = async () => (await failureOf(verifyRaw({ target }))).code;
  writeFileSync(target, readFileSync(target));
  const { damaged, notes } = await verifyRaw({ target });
  assert.is(damaged.length, 0);
  assert.match(notes[0]!, "another program has written to");
  renameSync(target, `${target}.incomplete`);
  assert.is(await codeOf(), "BACKUP_INCOMPLETE");
  rmSync(`${target}.incomplete`);
  assert.is(await codeOf(), "BACKUP_NOT_FOUND");
  writeFileSync(target, "");
  const record = recordPathOf(target);
  const fields = JSON.parse(readFileSync(record, "utf8")) as { sums: { crc32: string } };
  const swapped = fields.sums.crc32.replace(/^../, "//");
  writeFileSync(record, JSON.stringify({ ...fields, sums: { ...fields.sums, crc32: swapped } }));
  assert.is(await codeOf(), "BACKUP_VERSION");
  rmSync(record);
  assert.is(await codeOf(), "BACKUP_NOT_FOUND");
  machine.remove();
});

test("a block that is written in part is not known any more, and all others are", () => {
  const sums = new Sums(CAPACITY_BYTES);
  sums.put(BLOCK_BYTES - 512, 2 * BLOCK_BYTES, new Uint32Array([7]));
  const read = Sums.parse(sums.record(), CAPACITY_BYTES)!;
  assert.is(read.unknownBytes, 2 * BLOCK_BYTES);
  const [found] = read.differences(0, 4 * BLOCK_BYTES, null);
  assert.equal(found, { offset_bytes: BLOCK_BYTES, length_bytes: BLOCK_BYTES });
  assert.is(Sums.parse(sums.record(), CAPACITY_BYTES - 512), undefined);
});

test("a block that is empty in part is compared as a whole", () => {
  const capacityBytes = 2 ** 39;
  const sums = new Sums(capacityBytes);
  const blockBytes = sums.record().block_bytes;
  assert.is(blockBytes, 4 * BLOCK_BYTES);
  const empty = (offset_bytes: number, end: number) => ({
    offset_bytes,
    length_bytes: end - offset_bytes,
  });
  const ranges = [
    empty(0, BLOCK_BYTES),
    empty(2 * BLOCK_BYTES, 11 * BLOCK_BYTES),
    empty(capacityBytes - blockBytes - 1, capacityBytes),
  ];
  assert.equal(wholeBlocks(ranges, capacityBytes), [
    empty(blockBytes, 2 * blockBytes),
    empty(capacityBytes - blockBytes, capacityBytes),
  ]);
  assert.equal(sums.windowOf(BLOCK_BYTES, BLOCK_BYTES), {
    startBytes: BLOCK_BYTES,
    endBytes: BLOCK_BYTES,
    blockBytes,
  });
});

async function chainOf(machine: FakeMachine): Promise<Qcow2Export[]> {
  machine.write(0, randomBytes(5 * MIB));
  const points: Qcow2Export[] = [];
  for (let count = 0; count < 3; count++) {
    points.push(await exportQcow2({ ...own(machine), folder: machine.path("chain") }));
    change(machine);
  }
  return points;
}

test("a flipped byte in a qcow2 file is found in that file, and in those above", async () => {
  const machine = new FakeMachine(CAPACITY_BYTES);
  const folder = machine.path("chain");
  const [full, , last] = await chainOf(machine);
  assert.equal((await verifyQcow2({ folder })).damaged, []);
  // Somewhere in the data of the first; its place in the device is where QEMU shows it.
  const map = execFileSync("qemu-img", ["map", "--output=json", "-U", full!.path]);
  const extents = JSON.parse(map.toString()) as { start: number; offset: number; data: boolean }[];
  const { start, offset } = extents.find(({ data }) => data)!;
  flipByte(full!.path, offset + 3);
  const { damaged } = await verifyQcow2({ folder });
  assert.is(damaged.length, 3);
  assert.equal(new Set(damaged.map(({ offset_bytes }) => offset_bytes)), new Set([start]));
  flipByte(full!.path, offset + 3);
  const mapped = execFileSync("qemu-img", ["map", "--output=json", "-U", last!.path]);
  const own = (JSON.parse(mapped.toString()) as { depth: number; offset: number }[]).find(
    (extent) => extent.depth === 0 && extent.offset > 0,
  )!;
  flipByte(last!.path, own.offset);
  const found = (await verifyQcow2({ folder })).damaged;
  assert.equal(
    found.map(({ path }) => path),
    [last!.path],
  );
  flipByte(last!.path, own.offset);
  // The magic of the file: QEMU does not open it.
  flipByte(last!.path, 0);
  const { damaged: broken } = await verifyQcow2({ folder });
  assert.equal([broken.length, broken[0]!.path], [1, last!.path]);
  const other = await verifyQcow2({ folder, at: full!.path.split("/").at(-1) });
  assert.equal([other.points, other.damaged], [1, []]);
  machine.remove();
});

test("in a qcow2 file of a large device, clusters inside a block are compared, too", async () => {
  const machine = new FakeMachine(CAPACITY_BYTES);
  const folder = machine.path("large");
  const full = await exportQcow2({ ...own(machine), folder });
  const record = `${full.path}.blksnap.json`;
  const capacity_bytes = 2 ** 38 + MIB;
  const data = randomBytes(BLOCK_BYTES);
  const block = Buffer.concat([Buffer.alloc(BLOCK_BYTES), data, Buffer.alloc(2 * BLOCK_BYTES)]);
  const sums = new Sums(capacity_bytes);
  sums.put(0, block.length, sumsOf(block, sums.windowOf(0, block.length)));
  const fields = JSON.parse(readFileSync(record, "utf8")) as object;
  writeFileSync(record, JSON.stringify({ ...fields, capacity_bytes, sums: sums.record() }));
  chmodSync(full.path, 0o600);
  execFileSync("qemu-img", ["create", "-q", "-f", "qcow2", full.path, String(capacity_bytes)]);
  const file = await OpenQcow2.open(full.path);
  await file.write(data, BLOCK_BYTES);
  await file.finish();
  assert.equal((await verifyQcow2({ folder })).damaged, []);
  const other = await OpenQcow2.open(full.path);
  await other.write(Buffer.from([data[0]! ^ 1]), BLOCK_BYTES);
  await other.finish();
  const [found] = (await verifyQcow2({ folder })).damaged;
  assert.equal([found?.offset_bytes, found?.length_bytes], [0, block.length]);
  machine.remove();
});

test("a missing or replaced file of a chain is named", async () => {
  const machine = new FakeMachine(CAPACITY_BYTES);
  const folder = machine.path("chain");
  const [full, second, third] = await chainOf(machine);
  chmodSync(second!.path, 0o600);
  const name = full!.path.split("/").at(-1)!;
  execFileSync("qemu-img", ["rebase", "-u", "-b", "", second!.path]);
  const { damaged, notes } = await verifyQcow2({ folder, at: second!.path.split("/").at(-1) });
  assert.is(damaged[0]?.path, second!.path);
  assert.match(damaged[0]!.why, `it should be ${second!.path.split("/").at(-1)}, ${name}`);
  assert.match(notes[0]!, "another program has written to");
  rmSync(full!.path);
  const without = await verifyQcow2({ folder, at: third!.path.split("/").at(-1) });
  assert.match(without.damaged[0]!.why, name);
  machine.remove();
});

test.run();
