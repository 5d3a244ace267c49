import {
  copyFileSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { open } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import {
  ENTRIES_PER_SECTOR,
  growLog,
  JournalDraft,
  JournalError,
  JournalWriter,
  logOffsetOf,
  openJournal,
  repairTail,
  SECTOR_BYTES,
  writerBytes,
} from "@blksnap/journal";
import { test } from "uvu";
import * as assert from "uvu/assert";

const KIND = 7;
const ID = Uint8Array.from({ length: 16 }, (_, i) => i + 1);
const CHECKPOINT = Uint8Array.from({ length: 5000 }, (_, i) => i * 31);
const directory = mkdtempSync(join(tmpdir(), "blksnap-journal-"));
let files = 0;

type Entry = [number, number, number, number];

/** A file with a power supply: writes since the last sync may be there or not, sector by sector. */
class Log {
  readonly path: string;
  readonly writer: JournalWriter;
  readonly #buffer: ArrayBuffer;
  #sectors = 0;
  #draft: JournalDraft;

  private constructor(draft: JournalDraft, path: string, entriesMax: number, prefixMax: number) {
    this.path = path;
    this.#draft = draft;
    this.#buffer = new ArrayBuffer(writerBytes(entriesMax, prefixMax));
    this.writer = new JournalWriter({
      buffer: this.#buffer,
      id: ID,
      entriesMax,
      prefixEntriesMax: prefixMax,
      nextSequence: 1,
      nextCommit: 1,
    });
  }

  static async create(entriesMax = 100, logSectors = 32, prefixMax = 0): Promise<Log> {
    const path = join(directory, `journal-${files++}`);
    const journal = { kind: KIND, id: ID, logBytes: logSectors * SECTOR_BYTES };
    const draft = await JournalDraft.create(path, journal, CHECKPOINT.length);
    const log = new Log(draft, path, entriesMax, prefixMax);
    const handle = await draft.publish(CHECKPOINT, 1);
    await handle.close();
    return log;
  }

  /** Writes the sealed commit, but only sectors for which `arrives` returns true. */
  async write(arrives: (sector: number) => boolean = () => true): Promise<void> {
    const { writer } = this;
    writer.seal();
    const handle = await open(this.path, "r+");
    for (let i = 0; i < writer.sealedSectors; i++) {
      if (!arrives(i)) continue;
      const at = this.#draft.logOffsetBytes + (this.#sectors + i) * SECTOR_BYTES;
      const bytes = new Uint8Array(
        this.#buffer,
        writer.sealedOffsetBytes + i * SECTOR_BYTES,
        SECTOR_BYTES,
      );
      await handle.write(bytes, 0, SECTOR_BYTES, at);
    }
    await handle.close();
    this.#sectors += writer.sealedSectors;
    writer.complete();
  }
}

async function read(path: string) {
  const entries: Entry[] = [];
  const opened = await openJournal(path, { kind: KIND, id: ID }, (op, a, b, c) => {
    entries.push([op, a, b, c]);
  });
  await opened.handle.close();
  return { ...opened, entries };
}

async function codeOf(path: string): Promise<string> {
  try {
    await read(path);
    return "read";
  } catch (error) {
    if (error instanceof JournalError) return error.code;
    throw error;
  }
}

function append(log: Log, count: number, from: number): Entry[] {
  const entries: Entry[] = [];
  for (let i = from; i < from + count; i++) {
    const entry: Entry = [1, i, i * 2, 0xffffffff - i];
    log.writer.append(...entry);
    entries.push(entry);
  }
  return entries;
}

test.after(() => rmSync(directory, { recursive: true }));

test("entries are read in order, with the checkpoint", async () => {
  const log = await Log.create();
  const written = append(log, 3, 0);
  await log.write();
  written.push(...append(log, ENTRIES_PER_SECTOR * 2 + 1, 3));
  await log.write();
  const { entries, checkpoint, end, header } = await read(log.path);
  assert.equal(entries, written);
  assert.equal(Buffer.compare(checkpoint, CHECKPOINT), 0);
  assert.equal(end, { usedSectors: 4, nextSequence: 5, nextCommit: 3, torn: false });
  assert.is(header.logOffsetBytes, logOffsetOf(CHECKPOINT.length));
});

test("a half that is reused contains nothing of its former commit", async () => {
  const log = await Log.create();
  append(log, 40, 0);
  await log.write();
  append(log, 40, 40);
  await log.write();
  append(log, 1, 80);
  await log.write();
  assert.is((await read(log.path)).entries.length, 81);
});

test("a commit is full when its room is used up", async () => {
  const log = await Log.create(5);
  append(log, 5, 0);
  assert.is(log.writer.room, 0);
  assert.throws(() => append(log, 1, 5), /commit is full/);
});

test("after a power cut that leaves any part of the last commit, everything complete is read", async () => {
  for (let mask = 0; mask < 16; mask++) {
    const log = await Log.create(200);
    const complete = append(log, 50, 0);
    await log.write();
    const last = append(log, 4 * ENTRIES_PER_SECTOR, 50);
    await log.write((sector) => (mask & (1 << sector)) !== 0);
    const { entries, end } = await read(log.path);
    let whole = 0;
    while ((mask & (1 << whole)) !== 0) whole++;
    const expected = [...complete, ...last.slice(0, whole * ENTRIES_PER_SECTOR)];
    assert.equal(entries, expected, `mask ${mask}`);
    assert.is(end.torn, mask >> whole !== 0, `mask ${mask}`);
  }
});

test("a torn tail is repaired, and the log appended to", async () => {
  const log = await Log.create(200);
  append(log, 10, 0);
  await log.write();
  append(log, 3 * ENTRIES_PER_SECTOR, 10);
  await log.write((sector) => sector === 2);
  const opened = await openJournal(log.path, { kind: KIND, id: ID }, () => undefined);
  assert.ok(opened.end.torn);
  await repairTail(opened);
  await opened.handle.close();
  const { entries, end } = await read(log.path);
  assert.is(entries.length, 10);
  assert.equal(end, { usedSectors: 1, nextSequence: 2, nextCommit: 2, torn: false });
});

test("a missing sector before a later commit is damage", async () => {
  const log = await Log.create();
  append(log, 1, 0);
  await log.write();
  append(log, 1, 1);
  await log.write(() => false);
  append(log, 1, 2);
  await log.write();
  append(log, 1, 3);
  await log.write();
  assert.is(await codeOf(log.path), "JOURNAL_DAMAGED");
});

test("any flipped bit is refused by name, or changes nothing", async () => {
  const log = await Log.create(100, 4);
  const written = append(log, 35, 0);
  await log.write();
  const good = readFileSync(log.path);
  const copy = join(directory, "flipped");
  const refusals = new Set<string>();
  for (let at = 0; at < good.length; at += 1) {
    // The padding of the header page is not checked; a sample is enough.
    if (at >= SECTOR_BYTES && at < 4096 && at % 512 !== 0) continue;
    if (at > 4096 + 64 && at < 4096 + 4000 && at % 61 !== 0) continue;
    const bytes = Buffer.from(good);
    bytes[at] = (bytes[at] as number) ^ (1 << (at % 8));
    writeFileSync(copy, bytes);
    const code = await codeOf(copy);
    if (code === "read") {
      assert.equal((await read(copy)).entries, written, `byte ${at}`);
      assert.ok(at >= SECTOR_BYTES && at < 4096, `byte ${at} is not looked at`);
    } else {
      refusals.add(code);
    }
  }
  assert.equal([...refusals].sort(), ["JOURNAL_DAMAGED", "JOURNAL_FORMAT"]);
});

test("truncated, zeroed, newer and foreign journals are refused by name", async () => {
  const log = await Log.create();
  append(log, 3, 0);
  await log.write();
  const good = readFileSync(log.path);
  const copy = join(directory, "bad");
  for (const size of [0, 100, 511, 512, 4096, 9000, good.length - 1]) {
    copyFileSync(log.path, copy);
    truncateSync(copy, size);
    assert.match(await codeOf(copy), /JOURNAL_(FORMAT|TRUNCATED)/, `${size} bytes`);
  }
  writeFileSync(copy, Buffer.alloc(good.length));
  assert.is(await codeOf(copy), "JOURNAL_FORMAT");
  const swapped = Buffer.concat([good.subarray(0, 4096), good.subarray(8192, 12288)]);
  writeFileSync(copy, Buffer.concat([swapped, good.subarray(4096, 8192), good.subarray(12288)]));
  assert.is(await codeOf(copy), "JOURNAL_DAMAGED");
  const newer = Buffer.from(good);
  newer.writeUInt32LE(2, 8);
  newer.writeUInt32LE(crc32(newer.subarray(0, 508)), 508);
  writeFileSync(copy, newer);
  assert.is(await codeOf(copy), "JOURNAL_VERSION");
  const other = ID.map((byte) => byte ^ 1);
  const visit = () => undefined;
  const refused = await openJournal(log.path, { kind: KIND, id: other }, visit).catch(
    (e) => e.code,
  );
  assert.is(refused, "JOURNAL_FOREIGN");
  const kind = await openJournal(log.path, { kind: 8, id: ID }, visit).catch((e) => e.code);
  assert.is(kind, "JOURNAL_FOREIGN");
});

test("a log grows", async () => {
  const log = await Log.create(100, 2);
  append(log, 35, 0);
  await log.write();
  const opened = await openJournal(log.path, { kind: KIND, id: ID }, () => undefined);
  const grown = await growLog(opened.handle, opened.header, 8 * SECTOR_BYTES);
  await opened.handle.close();
  assert.is(grown.logBytes, 4096);
  append(log, 35, 35);
  await log.write();
  assert.is((await read(log.path)).entries.length, 70);
});

test("a draft that is given up leaves nothing behind", async () => {
  const path = join(directory, "draft");
  const draft = await JournalDraft.create(path, { kind: KIND, id: ID, logBytes: 512 }, 0);
  await draft.discard();
  assert.throws(() => readFileSync(`${path}.new`), /ENOENT/);
});

test("a prefix precedes earlier entries of the same commit", async () => {
  const log = await Log.create(70, 64, 65);
  const { writer } = log;
  for (let commit = 0; commit < 5; commit++) {
    const appended = append(log, [0, 1, 31, 70, 40][commit]!, 100 * commit);
    const prefix: Entry[] = [];
    const room = [65, 1, 30, 64, 0][commit]!;
    for (let i = 0; i < room; i++) {
      const entry: Entry = [2, commit, i, 7];
      writer.prepend(...entry);
      prefix.push(entry);
    }
    const sectors = writer.sectorsToSeal;
    const before = (await read(log.path)).entries;
    await log.write();
    const { entries, end } = await read(log.path);
    assert.equal(entries, [...before, ...prefix, ...appended], `commit ${commit}`);
    assert.is(end.nextCommit, commit + 2);
    assert.is(sectors, Math.ceil(room / 30) + Math.ceil(appended.length / 30));
  }
  for (let i = 0; i < 65; i++) writer.prepend(2, 0, 0, 0);
  assert.throws(() => writer.prepend(2, 0, 0, 0), /prefix is full/);
});

test("a log longer than one window, in a draft that grew, is read", async () => {
  const path = join(directory, "long");
  const logBytes = 2 ** 20;
  const draft = await JournalDraft.create(
    path,
    { kind: KIND, id: ID, logBytes },
    CHECKPOINT.length,
  );
  await draft.grow(3 * logBytes);
  const buffer = new ArrayBuffer(writerBytes(3000));
  const options = { buffer, id: ID, entriesMax: 3000, nextSequence: 1, nextCommit: 1 };
  const writer = new JournalWriter(options);
  let sectors = 0;
  for (let entry = 0; entry < 90_000; ) {
    for (; writer.room > 0; entry++) writer.append(1, entry, 0, 0);
    writer.seal();
    const bytes = new Uint8Array(
      buffer,
      writer.sealedOffsetBytes,
      writer.sealedSectors * SECTOR_BYTES,
    );
    await draft.writeLog(bytes, sectors * SECTOR_BYTES);
    sectors += writer.sealedSectors;
    writer.complete();
  }
  await (await draft.publish(CHECKPOINT, 1)).close();
  const { entries, end, header } = await read(path);
  assert.is(header.logBytes, 3 * logBytes);
  assert.is(end.usedSectors, 3000);
  assert.is(entries.length, 90_000);
  assert.ok(entries.every(([, a], index) => a === index));
});

test.run();
