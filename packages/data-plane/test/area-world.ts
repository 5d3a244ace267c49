/** A diff area's I/O alone, on a reactor of its own; the test plays the engine. */
import { closeSync } from "node:fs";
import { MessageChannel } from "node:worker_threads";
import { makeSlot } from "@blksnap/diff-storage";
import { BufferOwner, CopyKind, CopyMode, IoState, type TrackerEngine } from "@blksnap/engine";
import { NOT_REGISTERED, type RequestQueue } from "@blksnap/ublk";
import { high32, low32, type MappedMemory, Reactor } from "@blksnap/uring";
import { native } from "../../uring/dist/native.js";
import { AreaIo } from "../dist/area-io.js";
import type { AreaIoOptions } from "../dist/area-io-options.js";
import { CopyDurations } from "../dist/durations.js";
import type { IoTicker } from "../dist/io-ticker.js";

export const BLOCK_BYTES = 4096;
export const CHUNK_BYTES: number = 4 * BLOCK_BYTES;
export const GEOMETRY = { chunkBytes: CHUNK_BYTES, blockShift: 12 };
const EFD_CLOEXEC = 0o2000000;
/** Nothing is late here. */
const ticker = { start: () => undefined } as unknown as IoTicker;

/** Call `close()` when it has ended. */
export function openReactor(onError: (error: unknown) => void = () => undefined): {
  reactor: Reactor;
  close: () => void;
} {
  const { port1, port2 } = new MessageChannel();
  const wakeFd = native.eventFd(0, EFD_CLOEXEC);
  const reactor = new Reactor({ wakeFd, port: port2, onMessage: () => undefined, onError });
  const close = () => {
    closeSync(wakeFd);
    port1.close();
  };
  return { reactor, close };
}

type Own = Pick<AreaIoOptions, "reactor" | "storeFds"> &
  Partial<Pick<AreaIoOptions, "originalIndex" | "frontDepth">> & { readonly engine: unknown };

/** With windows of one block. */
export function areaIo({ frontDepth = 1, originalIndex = 0, engine, ...own }: Own): AreaIo {
  return new AreaIo({
    ...own,
    ticker,
    engine: engine as TrackerEngine,
    copyDurations: new CopyDurations(own.reactor, frontDepth, 1),
    originalIndex,
    frontDepth,
    imageDepth: 1,
    frontWindowBytes: BLOCK_BYTES,
    imageWindowBytes: BLOCK_BYTES,
    slotBytes: CHUNK_BYTES,
    journal: undefined,
  });
}

interface Run {
  /** A RunKind. */
  readonly kind: number;
  readonly slot: number;
  readonly chunk?: number;
  readonly bufferOffsetBytes?: number;
}

/** An engine with these parts of image requests, all of tag 0, each of a block. */
export function engineOf(
  runs: readonly Run[],
  onRunDone: (run: number, result: number) => void,
): {
  readonly runs: { readonly state: number[] };
  readonly image: { readonly error: number[] };
} {
  return {
    geometry: GEOMETRY,
    copies: { size: 1 },
    image: { error: [0] },
    runs: {
      size: runs.length,
      state: runs.map(() => IoState.LIVE),
      kind: runs.map(({ kind }) => kind),
      tag: runs.map(() => 0),
      chunk: runs.map(({ chunk = 0 }) => chunk),
      slot: runs.map(({ slot }) => makeSlot(0, slot)),
      offsetInChunkBytes: runs.map(() => 0),
      lengthBytes: runs.map(() => BLOCK_BYTES),
      bufferOffsetBytes: runs.map(({ bufferOffsetBytes = 0 }) => bufferOffsetBytes),
    },
    onRunDone,
  } as never;
}

/** The table of an engine with one linked copy of a block's old data, by the front's buffer. */
export function copyOf({
  chunk = 0,
  blockStart = 0,
  slot = 0,
}: {
  chunk?: number;
  blockStart?: number;
  slot?: number;
}): object {
  return {
    size: 1,
    chunk: [chunk],
    blockStart: [blockStart],
    lengthBytes: [BLOCK_BYTES],
    slot: [makeSlot(0, slot)],
    kind: [CopyKind.OLD],
    mode: [CopyMode.LINKED],
    bufferOwner: [BufferOwner.FRONT],
    bufferTag: [0],
    bufferOffsetBytes: [0],
    state: [IoState.LIVE],
  };
}

/** A queue with one tag, which has this memory. */
export function queueOn(memory: MappedMemory): RequestQueue {
  const queue = {
    depth: 1,
    maxIoBytes: memory.lengthBytes,
    bufferLow: [low32(memory.address)],
    bufferHigh: [high32(memory.address)],
    bufferIndex: [NOT_REGISTERED],
    keepBuffers: () => undefined,
    releaseBuffers: () => undefined,
    replaceBuffer(tag: number, { address }: MappedMemory) {
      queue.bufferLow[tag] = low32(address);
      queue.bufferHigh[tag] = high32(address);
    },
  };
  return queue as unknown as RequestQueue;
}
