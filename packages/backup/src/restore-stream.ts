/** Makes a raw copy from a stream, or updates the copy that the stream continues. */
import type { Readable } from "node:stream";
import { ChunkPool } from "./chunk-pool.js";
import { copyState, rememberBegun, rememberDone } from "./copy-state.js";
import { abortedError, BackupError } from "./errors.js";
import { inFlight } from "./in-flight.js";
import { withTargetLock } from "./lock.js";
import type { PartWriter } from "./part-copy.js";
import { Meter, type OnProgress } from "./progress.js";
import { type RawRecord, recordPathOf } from "./raw-record.js";
import { RawTarget, targetAt, targetKind } from "./raw-target.js";
import type { StreamHead } from "./stream-format.js";
import { damagedStream, type StreamPart, StreamReader } from "./stream-reader.js";
import { type Sums, sumsOnto } from "./sums.js";

export interface StreamRestoreOptions {
  /** One stream, or several in sequence. It is destroyed at the end. */
  readonly input: Readable;
  /** A file or block device. */
  readonly target: string;
  /** Records the snapshot that the target is of. Default: beside a file; of a block device: none. */
  readonly record?: string | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: OnProgress | undefined;
}

export interface StreamRestored extends Omit<StreamHead, "stream_id" | "total_bytes"> {
  /** Total of all streams of the input; the rest concerns the last. */
  readonly written_bytes: number;
}

/** Target of the parts of a stream. */
interface PartTarget extends PartWriter {
  /** Unwritten ranges read as zeros. */
  readonly isBlank: boolean;
}

const NOWHERE: PartTarget = {
  isBlank: true,
  write: async () => undefined,
  writeZeros: async () => undefined,
};

interface Reading {
  readonly reader: StreamReader;
  readonly pool: ChunkPool;
  readonly input: Readable;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: OnProgress | undefined;
}

/** Checks and writes all parts of a stream. Returns the number of bytes written. */
async function takeParts(
  { reader, pool, input, signal, onProgress }: Reading,
  head: StreamHead,
  target: PartTarget,
  sums?: Sums | undefined,
): Promise<number> {
  const meter = new Meter(head.total_bytes, onProgress);
  let writtenBytes = 0;
  const take = async (part: StreamPart): Promise<void> => {
    if (signal?.aborted === true) throw abortedError();
    const { content, offsetBytes, lengthBytes } = part;
    if (content === null) {
      await target.writeZeros(offsetBytes, lengthBytes);
      if (!target.isBlank) writtenBytes += lengthBytes;
      sums?.put(offsetBytes, lengthBytes, null);
    } else {
      const { data, hash } = await pool.digest(content.data);
      if (hash !== content.hash) throw damagedStream(`the checksum at byte ${offsetBytes} differs`);
      await target.write(data, offsetBytes);
      writtenBytes += lengthBytes;
      if (sums !== undefined) {
        const summed = await pool.sums(data, sums.windowOf(offsetBytes, lengthBytes));
        sums.put(offsetBytes, lengthBytes, summed.sums);
      }
    }
    meter.add(lengthBytes);
  };
  // Otherwise others would wait for a stream that stalls.
  await inFlight(reader.parts(), pool.depth, take, () => input.destroy());
  return writtenBytes;
}

/** Why the stream does not continue this copy; undefined if it does. */
function mismatch(base: RawRecord, head: StreamHead): string | undefined {
  const { changes_number: number, taken_at } = head.parent!;
  if (base.generation_id !== head.generation_id) {
    return `it continues generation ${head.generation_id}, and the target is of ${base.generation_id}`;
  }
  if (base.capacity_bytes !== head.capacity_bytes) return "the size of the device has changed";
  const ofParent = `snapshot ${number}${taken_at === null ? "" : `, taken at ${taken_at}`}`;
  const ofBase = `snapshot ${base.changes_number}, taken at ${base.taken_at}`;
  const baseMs = Date.parse(base.taken_at);
  const isSame =
    base.changes_number === number &&
    (taken_at === null ? baseMs <= Date.parse(head.taken_at) : baseMs === Date.parse(taken_at));
  return isSame ? undefined : `it continues ${ofParent}, and the target is of ${ofBase}`;
}

function broken(base: RawRecord | undefined, why: string): BackupError {
  const since = base === undefined ? "" : `, or of what it misses: --since ${base.changes_number}`;
  const hint = `Send a full stream${since}`;
  return new BackupError("BACKUP_CHAIN_BROKEN", `the stream does not fit: ${why}`, { hint });
}

async function baseOf(
  head: StreamHead,
  target: string,
  record: string | undefined,
): Promise<RawRecord | undefined> {
  const { base, why } = await copyState(target, record, head);
  if (head.kind === "full") return undefined;
  if (base === undefined) {
    const known = record === undefined ? "no record says" : `${record} does not say`;
    throw broken(base, why ?? `${known} which snapshot ${target} is of`);
  }
  const wrong = mismatch(base, head);
  if (wrong !== undefined) throw broken(base, wrong);
  return base;
}

async function restoreOne(
  reading: Reading,
  head: StreamHead,
  target: string,
  record: string | undefined,
): Promise<number> {
  const base = await baseOf(head, target, record);
  const { stream_id: _, kind: __, parent: ___, total_bytes: ____, ...now } = head;
  const to = await RawTarget.begin({
    path: target,
    capacityBytes: head.capacity_bytes,
    isUpdate: base !== undefined,
    seal: base?.seal,
    prepare: () => rememberBegun(record, base, now),
  });
  try {
    const sums = record === undefined ? undefined : sumsOnto(base, head.capacity_bytes);
    const writtenBytes = await takeParts(reading, head, to, sums);
    await to.finish((seal) => rememberDone(record, { ...now, target, seal }, sums));
    return writtenBytes;
  } finally {
    await to.close();
  }
}

/** Opens the input while `use` runs. */
async function reading<Result>(
  { input, signal, onProgress }: Omit<StreamRestoreOptions, "target">,
  use: (reading: Reading) => Promise<Result>,
): Promise<Result> {
  const pool = new ChunkPool();
  const stop = (): void => void input.destroy(abortedError());
  // Its reader gets errors, but may not exist yet.
  input.on("error", () => undefined);
  if (signal?.aborted === true) stop();
  else signal?.addEventListener("abort", stop);
  try {
    return await use({ reader: new StreamReader(input), pool, input, signal, onProgress });
  } finally {
    signal?.removeEventListener("abort", stop);
    input.destroy();
    await pool.close();
  }
}

function none(): BackupError {
  return new BackupError("BACKUP_INCOMPLETE", "the stream is empty", {
    hint: "See the messages of the export that sends it",
  });
}

function summaryOf(head: StreamHead, written_bytes: number): StreamRestored {
  const { stream_id: _, total_bytes: __, ...rest } = head;
  return { ...rest, written_bytes };
}

/** Failures after a complete stream do not affect it. @param whole for messages: what is complete */
async function begin(
  reader: StreamReader,
  done: StreamRestored | undefined,
  whole: string,
): Promise<StreamHead | undefined> {
  try {
    return await reader.begin();
  } catch (error) {
    if (done === undefined || !(error instanceof BackupError) || error.code === "ABORTED") {
      throw error;
    }
    const asOf = `snapshot ${done.changes_number}, taken at ${done.taken_at}`;
    const why = `${whole} as of ${asOf}; but the data after its stream is invalid: ${error.message}`;
    const hint =
      "The data before that is complete: send the following stream again, if there is one";
    throw new BackupError(error.code, why, { hint, cause: error });
  }
}

/**
 * Handles the streams of the input in turn.
 * @param whole as for begin() @param take returns the number of bytes written
 */
async function eachStream(
  { reader }: Reading,
  whole: string,
  take: (head: StreamHead) => Promise<number>,
): Promise<StreamRestored> {
  let done: StreamRestored | undefined;
  for (;;) {
    const head = await begin(reader, done, whole);
    if (head === undefined) break;
    done = summaryOf(head, (done?.written_bytes ?? 0) + (await take(head)));
  }
  if (done === undefined) throw none();
  return done;
}

/**
 * Restores all streams of the input in turn. A truncated or damaged stream leaves a target that does not look
 * complete, and that waits for a stream that continues its former state.
 * @throws BackupError BACKUP_INCOMPLETE, BACKUP_DAMAGED, BACKUP_VERSION, BACKUP_CHAIN_BROKEN, BACKUP_BUSY,
 * TARGET_EXISTS, TARGET_TOO_SMALL, TARGET_IN_USE, TARGET_FULL, ...
 */
export async function restoreStream(given: StreamRestoreOptions): Promise<StreamRestored> {
  const target = await targetAt(given.target);
  const kind = await targetKind(target);
  if (kind === "folder") {
    const hint = "Name a file or a block device";
    throw new BackupError("TARGET_EXISTS", `${target} is a folder`, { hint });
  }
  const beside = kind === "block" ? undefined : recordPathOf(target);
  const record = given.record === undefined ? beside : await targetAt(given.record);
  const run = (): Promise<StreamRestored> =>
    reading(given, (input) =>
      eachStream(input, `${target} is complete`, (head) => restoreOne(input, head, target, record)),
    );
  const what = `a restore to ${target}`;
  const locks = new Set([record, beside].filter((path) => path !== undefined));
  let locked = run;
  for (const path of locks) {
    const next = locked;
    locked = () => withTargetLock(path, what, next);
  }
  return await locked();
}

/** Reads and checks all streams of the input. @throws BackupError as restoreStream() */
export async function verifyStream(
  options: Omit<StreamRestoreOptions, "target" | "record">,
): Promise<StreamRestored> {
  return await reading(options, (input) =>
    eachStream(input, "the stream is whole", async (head) => {
      await takeParts(input, head, NOWHERE);
      return 0;
    }),
  );
}
