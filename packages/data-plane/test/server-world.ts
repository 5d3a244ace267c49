/** A reactor's server whose turns the test runs, and its requests to the kernel for memory. */
import { closeSync, ftruncateSync, writeSync } from "node:fs";
import { MessageChannel } from "node:worker_threads";
import { CbtMap } from "@blksnap/engine";
import { createMemoryFile, MappedMemory } from "@blksnap/uring";
import * as assert from "uvu/assert";
import { type NativeMapping, native } from "../../uring/dist/native.js";
import type { AttachRequest, FromReactor, ReactorRequest } from "../dist/messages.js";
import { ReactorServer } from "../dist/reactor-server.js";

const MIB = 2 ** 20;
const WAKE = new BigUint64Array([1n]);
export const POPULATE_WRITE = 23;
const DONTNEED_LOCKED = 24;
export const BUFFERS_BYTES: number = 2 * MIB;
const QUEUE = { queueDepth: 4, maxIoBytes: BUFFERS_BYTES / 4 };
export const GEOMETRY = {
  capacityBytes: 4 * MIB,
  logicalBlockBytes: 512,
  chunkShift: 18,
  blockShift: 12,
};

export class ServerWorld {
  readonly said: FromReactor[] = [];
  /** What populates, registers and frees memory. */
  readonly calls: string[] = [];
  /** Lengths of the mappings whose bytes are read, which V8 counts as its memory. */
  readonly viewed: number[] = [];
  readonly server: ReactorServer;
  readonly #fds: number[] = [];
  readonly #channel = new MessageChannel();
  readonly #wakeFd: number;
  readonly #original = { ...native };
  /** Mappings as long as the queue's buffers, or longer. */
  readonly #buffers = new Set<unknown>();

  constructor() {
    this.#wakeFd = native.eventFd(0, 0o2000000);
    this.#watch();
    this.server = new ReactorServer({
      wakeFd: this.#wakeFd,
      port: this.#channel.port2,
      say: (message) => this.said.push(message),
      settings: {
        index: 0,
        imageDepth: 4,
        ioTimeoutMs: 10_000,
        ringEntries: 256,
        heartbeat: new SharedArrayBuffer(4),
      },
    });
  }

  file(name: string, lengthBytes: number): number {
    const fd = createMemoryFile(name);
    ftruncateSync(fd, lengthBytes);
    this.#fds.push(fd);
    return fd;
  }

  attachRequest(queueDepth: number = QUEUE.queueDepth): AttachRequest {
    const { capacityBytes } = GEOMETRY;
    const lengthBytes = CbtMap.byteLength(capacityBytes, 16);
    const fd = this.file("cbt", lengthBytes);
    const memory = MappedMemory.file(fd, 0, lengthBytes);
    const generation = Uint8Array.from({ length: 16 }, (_, index) => index);
    CbtMap.create(memory.buffer, { capacityBytes, blockShift: 16, generation });
    return {
      type: "attach",
      tracker: 1,
      queue: { charFd: this.file("ublkc", MIB), ...QUEUE, queueDepth },
      originalFd: this.file("original", capacityBytes),
      isBlock: false,
      geometry: GEOMETRY,
      cbt: { fd, lengthBytes },
      area: undefined,
    };
  }

  /** How many mappings of the queue's buffers there are. */
  get mapped(): number {
    return this.#buffers.size;
  }

  closeFile(fd: number): void {
    this.#fds.splice(this.#fds.indexOf(fd), 1);
    closeSync(fd);
  }

  post(id: number, request: ReactorRequest, claim?: SharedArrayBuffer): void {
    this.#channel.port1.postMessage({ id, request, claim });
    this.#wake();
  }

  /** The answers to this request. */
  answers(id: number): FromReactor[] {
    return this.said.filter((one) => "re" in one && one.re === id);
  }

  /** Runs turns until the condition holds: as many as there are slices of memory, and a few. */
  turns(condition: () => boolean): number {
    let turns = 0;
    while (!condition()) {
      assert.ok(turns < 300, "it does not come");
      // One more wake-up, so that a turn with nothing to do ends as well.
      this.#wake();
      this.server.turn();
      turns++;
    }
    return turns;
  }

  close(): void {
    Object.assign(native, this.#original);
    for (const fd of this.#fds) closeSync(fd);
    this.#channel.port1.close();
  }

  #wake(): void {
    writeSync(this.#wakeFd, WAKE);
  }

  #watch(): void {
    const { advise, updateBuffer, mapMemory, bytesOf, unmap } = this.#original;
    native.bytesOf = (mapping) => {
      const bytes = bytesOf(mapping);
      this.viewed.push(bytes.byteLength);
      return bytes;
    };
    native.advise = (mapping, offset, length, advice) => {
      if (advice === POPULATE_WRITE) this.calls.push(`populate ${offset} ${length}`);
      if (advice === DONTNEED_LOCKED) this.calls.push(`free ${offset} ${length}`);
      return advise(mapping, offset, length, advice);
    };
    native.updateBuffer = (handle, index, address, length) => {
      if (length > 0) this.calls.push(`register ${length}`);
      return updateBuffer(handle, index, address, length);
    };
    native.mapMemory = (length, flags) => {
      const made = mapMemory(length, flags);
      if (length >= BUFFERS_BYTES) this.#buffers.add((made as NativeMapping).mapping);
      return made;
    };
    native.unmap = (mapping, buffer) => {
      this.#buffers.delete(mapping);
      return unmap(mapping, buffer);
    };
  }
}
