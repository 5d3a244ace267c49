/** Counts its own runs, and would survive a power cut in any of them. */
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  JournalDraft,
  JournalWriter,
  openJournal,
  SECTOR_BYTES,
  writerBytes,
} from "@blksnap/journal";

const path = process.argv[2] ?? join(tmpdir(), "blksnap-journal-counter");
const id = Uint8Array.from(Buffer.from("runs of a counter".slice(0, 16)));
const kind = 1;
let runs = 0;

const count = () => runs++;
const opened = await openJournal(path, { kind, id }, count).catch(async (error) => {
  if (error.code !== "ENOENT") throw error;
  const draft = await JournalDraft.create(path, { kind, id, logBytes: 64 * SECTOR_BYTES }, 0);
  await (await draft.publish(new Uint8Array(0), 1)).close();
  return openJournal(path, { kind, id }, count);
});

const { header, end, handle } = opened;
const buffer = new ArrayBuffer(writerBytes(1));
const writer = new JournalWriter({ buffer, id, entriesMax: 1, ...end });
writer.append(1, runs + 1, 0, 0);
writer.seal();
const sector = new Uint8Array(buffer, writer.sealedOffsetBytes, SECTOR_BYTES);
await handle.write(sector, 0, SECTOR_BYTES, header.logOffsetBytes + end.usedSectors * SECTOR_BYTES);
await handle.datasync();
writer.complete();
await handle.close();
console.log(`run ${runs + 1}`);
