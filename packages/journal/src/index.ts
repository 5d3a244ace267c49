export type { CheckpointSource } from "./checkpoint.js";
export { JournalError, type JournalErrorCode } from "./errors.js";
export {
  DRAFT_SUFFIX,
  growLog,
  JournalDraft,
  type NewJournal,
  type OpenedJournal,
  openJournal,
  repairTail,
  syncDirectory,
} from "./file.js";
export { type JournalHeader, logOffsetOf } from "./header.js";
export { ENTRIES_PER_SECTOR, SECTOR_BYTES } from "./layout.js";
export { type EntryVisitor, type LogEnd, readLog } from "./log-reader.js";
export { JournalWriter, type JournalWriterOptions, writerBytes } from "./writer.js";
