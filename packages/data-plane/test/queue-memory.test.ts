/** What a reactor does between the request for a queue and its first command. */
import { closeSync, ftruncateSync, writeSync } from "node:fs";
import { MessageChannel } from "node:worker_threads";
import { CbtMap } from "@blksnap/engine";
import { createMemoryFile, MappedMemory } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { native } from "../../uring/dist/native.js";
import { acquireClaim, makeClaim, withdraw } from "../dist/claim.js";
import type { AttachRequest, FromReactor, ReactorRequest } from "../dist/messages.js";
import { ReactorServer } from "../dist/reactor-server.js";

const MIB = 2 ** 20;
const WAKE = new BigUint64Array([1n]);
const POPULATE_WRITE = 23;
const BUFFERS_BYTES = 2 * MIB;
const QUEUE = { queueDepth: 4, maxIoBytes: BUFFERS_BYTES / 4 };
const geometry = { capacityBytes: 4 * MIB, logicalBlockBytes: 512, chunkShift: 18, blockShift: 12 };

/** A reactor's server whose turns the test makes, and what it asks of the kernel for memory. */
class World {
  readonly said: FromReactor[] = [];
  readonly calls: string[] = [];
  readonly server: ReactorServer;
  readonly #fds: number[] = [];
  readonly #channel = new MessageChannel();
  readonly #wakeFd: number;
  readonly #original = { ...native };
  /** Memory of the size of the queue's buffers that is mapped. */
  mapped = 0;

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

  attachRequest(): AttachRequest {
    const { capacityBytes } = geometry;
    const lengthBytes = CbtMap.byteLength(capacityBytes, 16);
    const fd = this.file("cbt", lengthBytes);
    const memory = MappedMemory.file(fd, 0, lengthBytes);
    const generation = Uint8Array.from({ length: 16 }, (_, index) => index);
    CbtMap.create(memory.buffer, { capacityBytes, blockShift: 16, generation });
    return {
      type: "attach",
      tracker: 1,
      queue: { charFd: this.file("ublkc", MIB), ...QUEUE },
      originalFd: this.file("original", capacityBytes),
      isBlock: false,
      geometry,
      cbt: { fd, lengthBytes },
      area: undefined,
    };
  }

  post(id: number, request: ReactorRequest, claim?: SharedArrayBuffer): void {
    this.#channel.port1.postMessage({ id, request, claim });
    this.#wake();
  }

  /** Answers to this request. */
  answers(id: number): FromReactor[] {
    return this.said.filter((one) => "re" in one && one.re === id);
  }

  /** Turns until the condition holds: as many as there are slices of memory, and a few. */
  turns(condition: () => boolean): number {
    let turns = 0;
    while (!condition()) {
      assert.ok(turns < 100, "it does not come");
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
    const { advise, updateBuffer, mapMemory, unmap } = this.#original;
    native.advise = (buffer, offset, length, advice) => {
      if (advice === POPULATE_WRITE) this.calls.push(`populate ${offset} ${length}`);
      return advise(buffer, offset, length, advice);
    };
    native.updateBuffer = (handle, index, address, length) => {
      if (length > 0) this.calls.push(`register ${length}`);
      return updateBuffer(handle, index, address, length);
    };
    native.mapMemory = (length, flags) => {
      if (length === BUFFERS_BYTES) this.mapped++;
      return mapMemory(length, flags);
    };
    native.unmap = (buffer, mapping) => {
      if (buffer.byteLength === BUFFERS_BYTES) this.mapped--;
      return unmap(buffer, mapping);
    };
  }
}

test("the buffers of a queue are taken slice by slice before it is made, and others are served between", () => {
  const world = new World();
  world.post(1, world.attachRequest(), makeClaim());
  world.turns(() => world.calls.length > 0);
  assert.equal(world.calls, ["populate 0 262144"]);
  world.post(2, { type: "counters", tracker: 7 });
  world.turns(() => world.answers(2).length > 0);
  assert.equal(world.answers(1), [], "the other request had to wait");
  world.turns(() => world.answers(1).length > 0);
  const slices = Array.from({ length: 8 }, (_, index) => `populate ${index * 262_144} 262144`);
  assert.equal(world.calls, [...slices, `register ${BUFFERS_BYTES}`]);
  assert.is(world.mapped, 1, "the queue has what was populated");
  world.close();
});

test("a request that is withdrawn while its buffers are taken leaves nothing behind", () => {
  const world = new World();
  const claim = makeClaim();
  world.post(1, world.attachRequest(), claim);
  world.turns(() => world.calls.length > 0);
  assert.is(world.mapped, 1);
  assert.ok(withdraw(claim), "it can still be withdrawn");
  world.turns(() => world.mapped === 0);
  assert.is(world.calls.length, 8);
  assert.equal(world.answers(1), []);
  assert.not(acquireClaim(claim));
  world.close();
});

test("a device that cannot be made gives the buffers back and says why", () => {
  const world = new World();
  const request = world.attachRequest();
  world.post(1, { ...request, cbt: { ...request.cbt, lengthBytes: 4096 } }, makeClaim());
  world.turns(() => world.answers(1).length > 0);
  assert.ok("error" in (world.answers(1)[0] as object));
  assert.is(world.mapped, 0);
  world.close();
});

test("a kernel that cannot populate makes the queue all the same", () => {
  const world = new World();
  const { advise } = native;
  native.advise = (buffer, offset, length, advice) =>
    advice === POPULATE_WRITE ? -22 : advise(buffer, offset, length, advice);
  world.post(1, world.attachRequest(), makeClaim());
  world.turns(() => world.answers(1).length > 0);
  assert.not("error" in (world.answers(1)[0] as object));
  assert.equal(world.calls, [`register ${BUFFERS_BYTES}`]);
  world.close();
});

test.run();
