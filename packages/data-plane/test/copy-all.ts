/** Copies all chunks of an area on real files, with a kernel that answers as a test says. */
import {
  closeSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { makeSlot } from "@blksnap/diff-storage";
import { BufferOwner, CopyMode, IoState } from "@blksnap/engine";
import type { Reactor } from "@blksnap/uring";
import * as assert from "uvu/assert";
import { areaIo, BLOCK_BYTES, CHUNK_BYTES, GEOMETRY, openReactor } from "./area-world.js";
import { passTime } from "./short-ring.js";

export const CHUNKS = 4;
export const UNWRITTEN = 0xdd;

export interface Done {
  readonly copy: number;
  readonly result: number;
  readonly fault: number;
}

export type Answer = (copy: number, isWrite: boolean, result: number) => number;

export interface World {
  readonly isOriginalGone?: boolean;
  /** CopyMode of all copies. */
  readonly mode?: number;
  /** The kernel's answer to a part of a copy, in place of its result. */
  readonly answer?: Answer;
  /** How often a failed copy is repeated, as an engine does with its blocks one by one. */
  readonly again?: number;
  /** A pause begins. */
  readonly onPause?: (state: Float64Array) => void;
}

/** Operations that the kernel did not carry out write nothing. */
export function answerFor(reactor: Reactor, storeFd: number, answer: Answer): void {
  const addHandler = reactor.addHandler.bind(reactor);
  reactor.addHandler = (handler) =>
    addHandler({
      onCompletion: (data, result, flags) => {
        const copy = data >> 1;
        const isWrite = (data & 1) === 1;
        const answered = answer(copy, isWrite, result);
        const block = Buffer.alloc(BLOCK_BYTES, UNWRITTEN);
        if (isWrite && answered < 0 && result >= 0)
          writeSync(storeFd, block, 0, BLOCK_BYTES, targetOf(copy));
        handler.onCompletion(data, answered, flags);
      },
    });
}

/** Copies one block of each chunk; returns how the copies ended, and the content of the store. */
export function copyAll(
  kind: number,
  storeFlags: string,
  originalChunks: number,
  {
    isOriginalGone = false,
    mode = CopyMode.LINKED,
    answer = (_copy, _isWrite, result) => result,
    again = 0,
    onPause,
  }: World = {},
): { done: Done[]; stored: Buffer; original: Buffer; read: number[] } {
  const folder = mkdtempSync(join(tmpdir(), "blksnap-area-"));
  const original = Buffer.alloc(originalChunks * CHUNK_BYTES);
  for (let at = 0; at < original.length; at += 512)
    original.fill(1 + ((at / 512) % 250), at, at + 512);
  writeFileSync(join(folder, "original"), original);
  writeFileSync(join(folder, "store"), Buffer.alloc(CHUNKS * CHUNK_BYTES, UNWRITTEN));
  const originalFd = openSync(join(folder, "original"), "r");
  const storeFd = openSync(join(folder, "store"), storeFlags);
  const done: Done[] = [];
  const errors: unknown[] = [];
  const { reactor, close } = openReactor((error) => errors.push(error));
  const state = Float64Array.from({ length: CHUNKS }, () => IoState.LIVE);
  answerFor(reactor, storeFd, answer);
  passTime(reactor, () => onPause?.(state));
  const read: number[] = [];
  const left = new Array<number>(CHUNKS).fill(again);
  const numbers = (value: (copy: number) => number) =>
    Float64Array.from({ length: CHUNKS }, (_, i) => value(i));
  const engine = {
    geometry: GEOMETRY,
    runs: { size: 1 },
    copies: {
      size: CHUNKS,
      chunk: numbers((copy) => copy),
      blockStart: numbers((copy) => copy),
      lengthBytes: numbers(() => BLOCK_BYTES),
      slot: numbers((copy) => makeSlot(0, CHUNKS - 1 - copy)),
      kind: numbers(() => kind),
      mode: numbers(() => mode),
      bufferOwner: numbers(() => BufferOwner.FRONT),
      bufferTag: numbers((copy) => copy),
      bufferOffsetBytes: numbers(() => 0),
      state,
    },
    onCopyRead: (copy: number) => read.push(copy),
    onCopyDone(copy: number, result: number, fault: number) {
      if (result < 0 && left[copy]!-- > 0) {
        io.submitCopy(copy);
        return;
      }
      done.push({ copy, result, fault });
      if (done.length === CHUNKS) reactor.stop();
    },
  };
  const originalIndex = reactor.addFile(originalFd);
  const io = areaIo({ reactor, engine, originalIndex, storeFds: [storeFd], frontDepth: CHUNKS });
  if (isOriginalGone) reactor.removeFile(originalIndex);
  for (let copy = 0; copy < CHUNKS; copy++) io.submitCopy(copy);
  reactor.run();
  for (const fd of [originalFd, storeFd]) closeSync(fd);
  close();
  const stored = readFileSync(join(folder, "store"));
  rmSync(folder, { recursive: true });
  assert.equal(errors, []);
  done.sort((a, b) => a.copy - b.copy);
  return { done, stored, original, read: read.sort() };
}

function targetOf(copy: number): number {
  return (CHUNKS - 1 - copy) * CHUNK_BYTES + copy * BLOCK_BYTES;
}

/** The block that a copy should have written. */
export function blockOf(stored: Buffer, copy: number): Buffer {
  const at = targetOf(copy);
  return stored.subarray(at, at + BLOCK_BYTES);
}

export function sourceOf(original: Buffer, copy: number): Buffer {
  const at = copy * (CHUNK_BYTES + BLOCK_BYTES);
  return original.subarray(at, at + BLOCK_BYTES);
}
