import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { open } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { BlockState, DiffAreaMap, NO_SLOT, type TrackerGeometry } from "@blksnap/engine";
import { JournalWriter, SECTOR_BYTES, writerBytes } from "@blksnap/journal";
import { uuidBytes } from "@blksnap/linux-block";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { AreaOp } from "../../../data-plane/dist/journal-entries.js";
import { AreaJournalFile, loadAreaJournal } from "../../dist/records/area-journal-file.js";
import { KeptFile } from "../../dist/records/file-names.js";
import type { PersistentDirectory } from "../../dist/records/persistent-directory.js";
import { patientDirectory } from "../support/patient-directory.js";

const UUID = "0d1f7a52-6a2e-4a53-9c1e-0f4bb6b1a001";
/** The last chunk is half a chunk and one sector long. */
const GEOMETRY: TrackerGeometry = {
  capacityBytes: 20 * 2 ** 18 + 2 ** 17 + 512,
  logicalBlockBytes: 512,
  chunkShift: 18,
  blockShift: 12,
};
let directory: PersistentDirectory;

test.before.each(async () => {
  directory = patientDirectory(mkdtempSync(join(tmpdir(), "blksnap-area-")));
  await directory.own();
});
test.after.each(() => {
  directory.close();
  rmSync(directory.path, { recursive: true });
});

function newMap(): DiffAreaMap {
  return DiffAreaMap.create(new ArrayBuffer(DiffAreaMap.byteLength(GEOMETRY)), GEOMETRY);
}

/** Slot and state of each recorded block, as text. */
function contents(map: DiffAreaMap): string[] {
  const lines: string[] = [];
  map.visitTouched(0, Number.MAX_SAFE_INTEGER, (chunk) => {
    const blocks = map.geometry.blocksInChunk(chunk);
    for (let block = 0; block < blocks; ) {
      const end = map.stateEnd(chunk, block, blocks);
      const state = map.stateAt(chunk, block);
      const slot = state === BlockState.DATA ? map.slotOf(chunk) : NO_SLOT;
      if (state !== BlockState.UNSAVED) lines.push(`${chunk}: ${block}-${end} ${state} ${slot}`);
      block = end;
    }
    return true;
  });
  return lines;
}

async function loaded(): Promise<DiffAreaMap> {
  const map = newMap();
  await loadAreaJournal(directory, UUID, map, () => undefined);
  return map;
}

/** Appends entries as one commit each, as a reactor would. */
async function append(journal: AreaJournalFile, entries: number[][]): Promise<void> {
  const { setup } = journal;
  const buffer = new ArrayBuffer(writerBytes(1));
  const { nextSequence, nextCommit } = setup;
  const id = uuidBytes(UUID);
  const writer = new JournalWriter({ buffer, id, entriesMax: 1, nextSequence, nextCommit });
  const handle = await open(directory.file(KeptFile.areaJournal.name(UUID)), "r+");
  let at = setup.logOffsetBytes + setup.usedSectors * SECTOR_BYTES;
  for (const [op = 0, a = 0, b = 0, c = 0] of entries) {
    writer.append(op, a, b, c);
    writer.seal();
    const sector = new Uint8Array(buffer, writer.sealedOffsetBytes, SECTOR_BYTES);
    await handle.write(sector, 0, SECTOR_BYTES, at);
    at += SECTOR_BYTES;
    writer.complete();
  }
  await handle.close();
}

function range(from: number, to: number): number {
  return from | (to << 16);
}

test("entries that a reactor appended are restored in the map", async () => {
  const journal = await AreaJournalFile.create(directory, UUID);
  await append(journal, [
    [AreaOp.SAVED, 3, 7, range(0, 4)],
    [AreaOp.SAVED, 20, 8, range(32, 33)],
    [AreaOp.SAVED, 3, 7, range(10, 64)],
  ]);
  await journal.close();
  assert.equal(contents(await loaded()), ["3: 0-4 1 7", "3: 10-64 1 7", "20: 32-33 1 8"]);
});

test("a reused slot belongs to its last chunk, whether its release is recorded or not", async () => {
  const journal = await AreaJournalFile.create(directory, UUID);
  await append(journal, [
    [AreaOp.SAVED, 3, 7, range(0, 64)],
    [AreaOp.SAVED, 4, 9, range(0, 64)],
    [AreaOp.RELEASED, 4, 1, 0],
    [AreaOp.SAVED, 5, 9, range(1, 2)],
    [AreaOp.SAVED, 6, 7, range(1, 2)],
    [AreaOp.SAVED, 3, 8, range(2, 3)],
  ]);
  await journal.close();
  const zero = BlockState.ZERO;
  assert.equal(contents(await loaded()), [
    `3: 0-2 ${zero} -1`,
    "3: 2-3 1 8",
    `3: 3-64 ${zero} -1`,
    `4: 0-64 ${zero} -1`,
    "5: 1-2 1 9",
    "6: 1-2 1 7",
  ]);
});

test("a journal made from a map has all of it, including lost and released blocks", async () => {
  const map = newMap();
  let seed = 1;
  const random = (below: number) => {
    seed = (Math.imul(seed, 1103515245) + 12345) & 0x7fffffff;
    return seed % below;
  };
  for (let step = 0; step < 400; step++) {
    const chunk = random(21);
    const from = random(32);
    const to = Math.min(from + 1 + random(8), map.geometry.blocksInChunk(chunk));
    const kind = random(10);
    if (kind === 0) map.release(chunk);
    else if (kind === 1 && !map.isReleased(chunk)) map.setLost(chunk, from, to);
    else {
      if (map.slotOf(chunk) === NO_SLOT) map.setSlot(chunk, 1000 + step);
      map.setSaved(chunk, from, to);
    }
  }
  const journal = await AreaJournalFile.create(directory, UUID, map);
  await journal.close();
  const back = await loaded();
  assert.equal(contents(back), contents(map));
  assert.ok(contents(map).length > 100, "a map with next to nothing in it shows nothing");
});

test("a journal can be extended while it is appended to", async () => {
  const journal = await AreaJournalFile.create(directory, UUID);
  const told: number[] = [];
  const requests = { grown: async (...grown: number[]) => void told.push(...grown) };
  await journal.serve("log", requests as never);
  assert.equal(told, [journal.setup.fd, 2 * journal.setup.logBytes]);
  assert.is(journal.logBytes, 2 * journal.setup.logBytes);
  await append(journal, [[AreaOp.SAVED, 1, 1, range(0, 1)]]);
  await journal.close();
  assert.equal(contents(await loaded()), ["1: 0-1 1 1"]);
});

test("entries of another device, and unknown ones, are refused", async () => {
  for (const entry of [
    [AreaOp.SAVED, 21, 1, range(0, 1)],
    [AreaOp.SAVED, 20, 1, range(0, 64)],
    [AreaOp.SAVED, 1, 1, range(5, 5)],
    [AreaOp.RELEASED, 20, 2, 0],
    [99, 0, 0, 0],
  ]) {
    const journal = await AreaJournalFile.create(directory, UUID);
    await append(journal, [entry]);
    await journal.close();
    let failure = "nothing was thrown";
    await loaded().catch((error: Error) => {
      failure = error.message;
    });
    assert.match(failure, /not of this device|operation 99/);
  }
});

test("a damaged journal is refused by name", async () => {
  const journal = await AreaJournalFile.create(directory, UUID);
  await append(journal, [[AreaOp.SAVED, 1, 1, range(0, 1)]]);
  await journal.close();
  const path = directory.file(KeptFile.areaJournal.name(UUID));
  const bytes = readFileSync(path);
  bytes[journal.setup.logOffsetBytes + 30] ^= 4;
  writeFileSync(path, bytes);
  const failure = await loaded().catch((error: { code: string }) => error.code);
  assert.is(failure, "JOURNAL_DAMAGED");
});

test.run();
