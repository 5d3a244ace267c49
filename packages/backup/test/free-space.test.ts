/** Free space of a file system is not exported; e2fsprogs check the result, too. */
import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { promisify } from "node:util";
import type { ByteRange } from "@blksnap/api";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { exportRaw, type RawExportOptions } from "../dist/export-raw.js";
import { exportToStore } from "../dist/export-store.js";
import { exportStream } from "../dist/export-stream.js";
import { FreeSpaceReader, openAllocated, unionOf } from "../dist/free-space.js";
import { restore } from "../dist/restore.js";
import { restoreStream } from "../dist/restore-stream.js";
import { BackupStore } from "../dist/store.js";
import { verifyRaw } from "../dist/verify-copies.js";
import { FakeMachine, failureOf } from "./fake-machine.js";

const MIB = 2 ** 20;
const SIZE_BYTES = 32 * MIB;
const PATH = `${process.env["PATH"]}:/usr/sbin:/sbin`;
const ENVIRONMENT = { env: { ...process.env, PATH } };

const run = (program: string, ...words: string[]) =>
  promisify(execFile)(program, words, ENVIRONMENT);

async function withFileSystem(
  words: readonly string[],
  use: (image: string, files: ReadonlyMap<string, Buffer>, folder: string) => Promise<void>,
): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "free-space-"));
  try {
    const root = join(folder, "root");
    const image = join(folder, "image");
    const files = new Map<string, Buffer>();
    mkdirSync(root);
    for (let index = 0; index < 12; index++) {
      const bytes = randomBytes(1 + index * 40_000);
      files.set(`file${index}`, bytes);
      writeFileSync(join(root, `file${index}`), bytes);
    }
    writeFileSync(image, "");
    truncateSync(image, SIZE_BYTES);
    await run("mke2fs", "-q", "-F", "-d", root, ...words, image);
    await use(image, files, folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** The file system on an image is consistent, and has its files. */
async function assertWhole(
  image: string,
  files: ReadonlyMap<string, Buffer>,
  folder: string,
): Promise<void> {
  await run("e2fsck", "-f", "-n", image);
  const found = join(folder, "found");
  mkdirSync(found);
  await run("debugfs", "-R", `rdump / ${found}`, image);
  for (const [name, expected] of files) {
    assert.ok(readFileSync(join(found, name)).equals(expected), name);
  }
}

const KINDS: readonly (readonly string[])[] = [
  ["-t", "ext4"],
  ["-t", "ext4", "-b", "1024", "-E", "lazy_itable_init=1"],
  ["-t", "ext4", "-O", "^flex_bg,^metadata_csum", "-b", "4096", "-g", "2048"],
  ["-t", "ext2", "-b", "2048"],
];
for (const words of KINDS) {
  test(`mke2fs ${words.join(" ")}: without free space, nothing is missing`, () =>
    withFileSystem(words, async (image, files, folder) => {
      const reader = await openAllocated(image);
      const free = await reader.emptyRanges();
      await reader.close();
      const bytes = free.reduce((sum, { length_bytes }) => sum + length_bytes, 0);
      assert.ok(bytes > SIZE_BYTES / 2 && bytes < SIZE_BYTES - 4 * MIB, `${bytes} bytes are free`);
      const content = readFileSync(image);
      for (const { offset_bytes: at, length_bytes: length } of free)
        content.fill(0xaa, at, at + length);
      const copy = join(folder, "copy");
      writeFileSync(copy, content);
      await assertWhole(copy, files, folder);
    }));
}

async function refused(image: string, why: RegExp): Promise<void> {
  const reader = await openAllocated(image);
  const error = await reader.emptyRanges().then(
    () => undefined,
    (reason: { code: string; message: string }) => reason,
  );
  await reader.close();
  assert.is(error?.code, "IMAGE_FAILED");
  assert.match(error?.message ?? "", why);
}

test("a file system that is inconsistent without its journal is refused", () =>
  withFileSystem(["-t", "ext4"], async (image, _, folder) => {
    const superblock = readFileSync(image);
    const change = async (command: string, why: RegExp): Promise<void> => {
      await run("debugfs", "-w", "-R", command, image);
      await refused(image, why);
      writeFileSync(image, superblock);
    };
    await change("feature needs_recovery", /journal replay/);
    await change("ssv state 0", /without a journal, or has errors/);
    await change("ssv state 3", /without a journal, or has errors/);
    await change("feature bigalloc", /bigalloc/);
    // Like a disk that was partitioned over a file system: data of the partitions are in its free space.
    const partitioned = Buffer.from(superblock);
    partitioned.set([0x55, 0xaa], 510);
    writeFileSync(image, partitioned);
    await refused(image, /does not start at the beginning/);
    const other = join(folder, "other");
    writeFileSync(other, Buffer.alloc(MIB));
    await refused(other, /no ext2/);
    writeFileSync(other, Buffer.alloc(1500));
    await refused(other, /too small/);
  }));

function optionsOf({ client, device }: FakeMachine, target: string): RawExportOptions {
  const own = { client, device, stores: ["/var/tmp"], limitBytes: MIB, host: "here" };
  return { ...own, wanted: { kind: "auto" }, target, open: openAllocated };
}

/** Free space begins within blocks with a sum: these sums exist all the same. */
async function assertVerified(target: string): Promise<void> {
  const { checked_bytes, damaged, notes } = await verifyRaw({ target });
  assert.equal(
    { checked_bytes, damaged, notes },
    { checked_bytes: SIZE_BYTES, damaged: [], notes: [] },
  );
}

test("a full export contains allocated blocks, later ones changes; a refused one changes nothing", () =>
  withFileSystem(["-t", "ext4"], async (image, files, folder) => {
    const machine = new FakeMachine(SIZE_BYTES);
    const raw = machine.path("raw");
    const content = readFileSync(image);
    const reader = await openAllocated(image);
    const most = 2 * MIB;
    const [free] = (await reader.emptyRanges()).filter(({ length_bytes }) => length_bytes > most);
    await reader.close();
    // Blocks with a checksum are omitted completely or not at all.
    const at = Math.ceil((free?.offset_bytes ?? 0) / MIB) * MIB;
    content.fill(0xaa, at, at + MIB);
    machine.write(0, content);
    const { kind, read_bytes } = await exportRaw(optionsOf(machine, raw));
    assert.is(kind, "full");
    assert.ok(read_bytes < SIZE_BYTES / 2, `${read_bytes} bytes are read`);
    await assertWhole(raw, files, folder);
    await assertVerified(raw);
    assert.ok(
      readFileSync(raw)
        .subarray(at, at + MIB)
        .equals(Buffer.alloc(MIB)),
    );
    const store = await BackupStore.openOrCreate(machine.path("store"));
    const point = await exportToStore(store, optionsOf(machine, ""));
    const restored = machine.path("restored");
    await restore({ store, point, target: restored });
    assert.ok(readFileSync(restored).equals(readFileSync(raw)));
    const pieces: Buffer[] = [];
    const write = async (data: Uint8Array): Promise<void> => void pieces.push(Buffer.from(data));
    const sink = { write, end: async () => undefined };
    await exportStream({ ...optionsOf(machine, ""), wanted: { kind: "full" }, sink });
    const received = machine.path("received");
    await restoreStream({ input: Readable.from(pieces), target: received });
    await assertVerified(received);

    // Newly allocated blocks were written, so the changes contain them; free space is not queried.
    const now = Buffer.from(machine.content);
    now.writeUInt32LE(now.readUInt32LE(1024 + 0x60) | 4, 1024 + 0x60);
    machine.write(1024, now.subarray(1024, 2048));
    machine.write(at, Buffer.alloc(65_536, 0xbb));
    assert.is((await exportRaw(optionsOf(machine, raw))).kind, "incremental");
    assert.is(readFileSync(raw)[at], 0xbb);
    const other = machine.path("other");
    const error = await failureOf(exportRaw(optionsOf(machine, other)));
    assert.match(error.message, /journal replay/);
    assert.not(existsSync(other) || existsSync(`${other}.incomplete`));
    machine.remove();
  }));

test("bitmaps and descriptors with wrong checksums are refused", () =>
  withFileSystem(["-t", "ext4", "-O", "metadata_csum"], async (image) => {
    const content = readFileSync(image);
    const { stdout } = await run("dumpe2fs", image);
    const blockBytes = Number(/^Block size: +(\d+)$/m.exec(stdout)?.[1]);
    const bitmapAt = Number(/Block bitmap at (\d+)/.exec(stdout)?.[1]) * blockBytes;
    const damaged = Buffer.from(content);
    // One block is free instead of another: the count is unchanged.
    const last = damaged.subarray(bitmapAt, bitmapAt + blockBytes).lastIndexOf(0);
    assert.ok(damaged[bitmapAt] === 0xff && last > 0);
    damaged[bitmapAt] = 0xfe;
    damaged[bitmapAt + last] = 0x01;
    writeFileSync(image, damaged);
    await refused(image, /checksum/i);
    const descriptors = Math.max(2048, blockBytes);
    content[descriptors + 0x1e]! ^= 1;
    writeFileSync(image, content);
    await refused(image, /descriptor has a wrong checksum/);
  }));

test("free space that contradicts its group is not trusted", () => {
  const group = (count: number, runs: string): string[] => [
    "Free blocks:              7",
    "Block size:               4096",
    "Group 0: (Blocks 0-100) csum 0x0 [ITABLE_ZEROED]",
    `  ${count} free blocks, 7 free inodes, 2 directories`,
    `  Free blocks: ${runs}`,
    "  Free inodes: 12-18",
  ];
  const read = (lines: readonly string[]): FreeSpaceReader => {
    const reader = new FreeSpaceReader();
    for (const line of lines) reader.line(line);
    reader.end();
    return reader;
  };
  const good = read(group(4, "5-7, 9"));
  assert.is(good.problem, undefined);
  assert.equal(good.ranges, [
    { offset_bytes: 5 * 4096, length_bytes: 3 * 4096 },
    { offset_bytes: 9 * 4096, length_bytes: 4096 },
  ]);
  assert.equal(read(group(0, "")).ranges, []);
  const warned = ["*** Checksum errors detected in bitmaps!  Run e2fsck now!", ...group(1, "9")];
  assert.match(read(warned).problem ?? "", /Checksum errors/);
  for (const [count, runs] of [
    [5, "5-7, 9"],
    [4, ""],
    [4, "9, 5-7"],
    [4, "5-7, x"],
  ] as const) {
    assert.not.type(read(group(count, runs)).problem, "undefined", runs);
  }
});

test("adjacent ranges are merged", () => {
  const range = (offset_bytes: number, length_bytes: number): ByteRange => ({
    offset_bytes,
    length_bytes,
  });
  assert.equal(unionOf([], []), []);
  assert.equal(unionOf([range(0, 10), range(20, 10)], [range(5, 10), range(30, 5), range(50, 1)]), [
    range(0, 15),
    range(20, 15),
    range(50, 1),
  ]);
  assert.equal(unionOf([range(0, 100)], [range(10, 5)]), [range(0, 100)]);
});

test.run();
