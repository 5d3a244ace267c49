/** Exports a device as a stream, from which `restoreStream` makes a raw copy, here or elsewhere. */
import { randomUUID } from "node:crypto";
import { ChunkPool } from "./chunk-pool.js";
import { CHUNK_BYTES } from "./chunks.js";
import { type DoneChunks, doneChunks, keptReason } from "./done-chunks.js";
import { abortedError, BackupError } from "./errors.js";
import { emptyOf, type RawExport } from "./export-raw.js";
import type { ExportOptions } from "./export-store.js";
import { hostOf } from "./host.js";
import { inOrder } from "./in-flight.js";
import { withTargetLock } from "./lock.js";
import { bytesOf, type Part, partsOf, readPlaces } from "./parts.js";
import { type AsOf, asOf, type Plan, planExport, withoutHost } from "./plan.js";
import { Meter } from "./progress.js";
import { targetAt } from "./raw-target.js";
import { rememberedInFile } from "./remembered.js";
import { readSent, writeSent } from "./sent-record.js";
import { reasonOf, type TakenSnapshot, withSnapshot } from "./snapshot.js";
import { type ImageReader, openImage } from "./source.js";
import {
  hashOf,
  RecordChain,
  type RecordFields,
  STREAM_HEAD_BYTES,
  STREAM_MAGIC,
  STREAM_VERSION,
  type StreamFail,
  type StreamHead,
  type StreamTail,
} from "./stream-format.js";
import type { StreamSink } from "./stream-sink.js";

export interface StreamExportOptions extends ExportOptions {
  readonly sink: StreamSink;
  /** File that records the snapshot of the last stream. `auto` needs it. */
  readonly record?: string | undefined;
}

export interface StreamExport extends RawExport {
  readonly sent_bytes: number;
}

interface ReadPart {
  readonly part: Part;
  /** Its content; null for zeros. */
  readonly content: { readonly data: Uint8Array; readonly hash: string } | null;
  /** Memory that it was read into. */
  readonly memory?: Uint8Array<ArrayBuffer>;
}

/** Writes records, one after the other. */
class StreamWriter {
  readonly #sink: StreamSink;
  readonly #signal: AbortSignal | undefined;
  readonly #chain = new RecordChain();
  #isWriting = false;
  #records = 0;
  #dataBytes = 0;
  #zeroBytes = 0;
  sentBytes = 0;

  constructor(sink: StreamSink, signal: AbortSignal | undefined) {
    this.#sink = sink;
    this.#signal = signal;
  }

  async begin(head: StreamHead): Promise<void> {
    await this.#write(Buffer.from(STREAM_MAGIC + STREAM_VERSION));
    await this.#text("HEAD", head);
  }

  async part({ part, content }: ReadPart): Promise<void> {
    const { offsetBytes, lengthBytes } = part;
    const place = { offsetBytes, lengthBytes };
    if (content === null) {
      this.#zeroBytes += lengthBytes;
      const payloadHash = hashOf(Buffer.alloc(0));
      return await this.#record({ type: "ZERO", payloadBytes: 0, ...place, payloadHash });
    }
    this.#dataBytes += lengthBytes;
    const { data, hash: payloadHash } = content;
    await this.#record({ type: "DATA", payloadBytes: data.length, ...place, payloadHash }, data);
  }

  async end(): Promise<void> {
    const [data_bytes, zero_bytes] = [this.#dataBytes, this.#zeroBytes];
    const tail: StreamTail = { records: this.#records, data_bytes, zero_bytes };
    await this.#text("TAIL", tail);
    await this.#sink.end();
  }

  /** Sends why there is no end, if a record can be written at all. */
  async fail(error: unknown): Promise<void> {
    if (this.#isWriting) return;
    const { code, message } = error as BackupError;
    const fail: StreamFail = { name: String(code), message };
    await this.#text("FAIL", fail).catch(() => undefined);
  }

  async #text(type: "HEAD" | "TAIL" | "FAIL", fields: StreamHead | StreamTail | StreamFail) {
    const text = Buffer.from(JSON.stringify(fields));
    const place = { offsetBytes: 0, lengthBytes: 0 };
    const payloadHash = hashOf(text);
    await this.#record({ type, payloadBytes: text.length, ...place, payloadHash }, text);
  }

  async #record(fields: RecordFields, payload?: Uint8Array): Promise<void> {
    this.#records++;
    await this.#write(this.#chain.encode(fields));
    if (payload !== undefined) await this.#write(payload);
  }

  /** A reader may stop forever; an abort does not depend on it. */
  async #write(data: Uint8Array): Promise<void> {
    const signal = this.#signal;
    // Stays set if a write fails or is abandoned: nothing may follow a partial record.
    this.#isWriting = true;
    const written = this.#sink.write(data);
    if (signal === undefined) await written;
    else {
      written.catch(() => undefined);
      let stop: () => void = () => undefined;
      const aborted = new Promise<never>((_, fail) => {
        stop = () => fail(abortedError());
        if (signal.aborted) stop();
        else signal.addEventListener("abort", stop);
      });
      await Promise.race([written, aborted]).finally(() =>
        signal.removeEventListener("abort", stop),
      );
    }
    this.#isWriting = false;
    this.sentBytes += data.length;
  }
}

interface StreamPlan {
  readonly plan: Plan<AsOf>;
  readonly parent: StreamHead["parent"];
}

async function planStream(
  { client, wanted }: StreamExportOptions,
  now: AsOf,
  sent: AsOf | undefined,
  snapshot: TakenSnapshot,
): Promise<StreamPlan> {
  // A receiver whose copy is requested by number alone checks by itself that the stream continues it.
  const isAsked = wanted.kind === "since" && sent?.changes_number !== wanted.number;
  const asked = isAsked ? { ...now, changes_number: wanted.number } : undefined;
  const states = [asked ?? sent].filter((state) => state !== undefined);
  const plan = await planExport(client, wanted, states, now, snapshot);
  if (plan.kind === "full") return { plan, parent: null };
  const { changes_number, taken_at } = plan.base;
  return { plan, parent: { changes_number, taken_at: asked === undefined ? taken_at : null } };
}

async function sendParts(
  parts: readonly Part[],
  image: ImageReader,
  writer: StreamWriter,
  { signal, onProgress }: StreamExportOptions,
  freed: DoneChunks,
): Promise<number> {
  const meter = new Meter(bytesOf(parts), onProgress);
  const pool = new ChunkPool();
  // Reused, because the kernel clears new memory, and V8 collects garbage for it.
  const idle: Uint8Array<ArrayBuffer>[] = [];
  const read = async (part: Part): Promise<ReadPart> => {
    if (signal?.aborted === true) throw abortedError();
    if (part.isDiscarded) return { part, content: null };
    const known = part.lengthBytes === CHUNK_BYTES ? idle.pop() : undefined;
    const place = known ?? new Uint8Array(part.lengthBytes);
    await image.read(place, part.offsetBytes);
    const { data, hash } = await pool.digest(place);
    return { part, content: hash === null ? null : { data, hash }, memory: data };
  };
  try {
    await inOrder(parts, pool.depth, read, async (found) => {
      await writer.part(found);
      if (found.memory?.length === CHUNK_BYTES) idle.push(found.memory);
      if (found.part.isDiscarded) return;
      meter.add(found.part.lengthBytes);
      freed.done(found.part.offsetBytes);
    });
  } finally {
    await pool.close();
  }
  return meter.doneBytes;
}

async function send(snapshot: TakenSnapshot, options: StreamExportOptions): Promise<StreamExport> {
  const { open = openImage, record, sink, signal } = options;
  const { capacityBytes } = snapshot;
  const now = asOf(snapshot, hostOf(options));
  const sent = record === undefined ? undefined : await readSent(record);
  const { plan, parent } = await planStream(options, now, sent, snapshot);
  const image = await open(snapshot.image, snapshot.exported);
  const writer = new StreamWriter(sink, signal);
  try {
    const { kind } = plan;
    // The receiver computes sums.
    const empty = kind === "full" ? await emptyOf(image, capacityBytes) : [];
    const parts = partsOf(plan, capacityBytes, STREAM_HEAD_BYTES, empty);
    const reason = plan.kind === "full" ? plan.reason : null;
    const readBytes = bytesOf(parts);
    const kept = keptReason(snapshot, readBytes, options);
    options.onPlan?.({ kind, reason, total_bytes: readBytes, kept });
    const total_bytes = parts.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0);
    await writer.begin({ stream_id: randomUUID(), ...now, kind, parent, total_bytes });
    const freed = doneChunks(snapshot, readPlaces(parts), kept, options);
    const read_bytes = await sendParts(parts, image, writer, options, freed).finally(freed.end);
    await image.sync();
    await snapshot.check(freed.end());
    await writer.end();
    if (record !== undefined) await writeSent(record, now);
    return { kind, ...withoutHost(now), read_bytes, sent_bytes: writer.sentBytes };
  } catch (error) {
    const reason = await reasonOf(snapshot, error);
    await writer.fail(reason);
    throw reason;
  } finally {
    await image.close();
  }
}

/**
 * Sends the device in its snapshot. The last record follows when everything was read and the snapshot is whole:
 * without it, no restore accepts the rest as a copy.
 * @throws BackupError BACKUP_CHAIN_BROKEN, BACKUP_BUSY, TARGET_FAILED, TARGET_FULL, ABORTED, ...
 */
export async function exportStream(given: StreamExportOptions): Promise<StreamExport> {
  if (given.record === undefined) {
    if (given.wanted.kind === "auto") {
      const hint = "Name its record: --record FILE; or give --since NUMBER";
      const why = "no record says which snapshot the last stream was of";
      throw new BackupError("BACKUP_CHAIN_BROKEN", why, { hint });
    }
    return await withSnapshot(given, (snapshot) => send(snapshot, given));
  }
  const record = await targetAt(given.record);
  const options = { ...given, record };
  const own = { ...options, ownSnapshot: rememberedInFile(`${record}.snapshot`) };
  return withTargetLock(record, "an export as a stream", () =>
    withSnapshot(own, (snapshot) => send(snapshot, options)),
  );
}
