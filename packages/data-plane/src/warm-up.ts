/**
 * Compiles the data path before its first request: V8 interprets code until it has run some thousand times, which costs
 * each of a process's first requests 5 to 60 µs, and several hundred in User Mode Linux. A front and an image without a
 * kernel's device, over /dev/zero, serve requests of each kind on a ring of their own:
 *
 * ```
 *   reactor's ring ── NOP: its turn ──▶ step ── turn of the other ring: at most DEPTH requests
 *                  └─ anything else arrived in that turn ──▶ the next step is PAUSE_MS later
 * ```
 *
 * So it uses time in which the reactor would sleep, and ends when all requests are served, or its time is over.
 */
import { closeSync, ftruncateSync, openSync, writeSync } from "node:fs";
import { MessageChannel } from "node:worker_threads";
import { CbtMap, DiffAreaMap, firstMapBytes, OverflowPolicy, RequestOp } from "@blksnap/engine";
import { DriverStandIn, type RequestSource } from "@blksnap/ublk";
import { createEventFd, createMemoryFile, MappedMemory, prepareNop, Reactor } from "@blksnap/uring";
import type { AreaId } from "./area-id.js";
import { IoTicker } from "./io-ticker.js";
import type { ReactorSettings } from "./messages.js";
import { TrackedDevice } from "./tracked-device.js";

/** Requests per turn: even uncompiled they take a fraction of a millisecond. */
const DEPTH = 8;
const MAX_IO_BYTES = 64 * 1024;
/** After so many, V8 has compiled their code. First writes need most of it, and come first in case time is short. */
const FIRST_WRITES = 3072;
const REQUESTS = 1024;
const PAUSE_MS = 20;
/** Most pauses because of other work: after that, requests of users have compiled the code. */
const PAUSES_MAX = 100;
const BUSY_MS_MAX = 1000;
/** Time for requests in flight to end. */
const END_TIMEOUT_MS = 2000;
const IO_TIMEOUT_MS = 60_000;
const RING_ENTRIES = 64;
const SECTORS_PER_BLOCK = 8;
const CBT_BLOCK_SHIFT = 16;
const BLOCKS = FIRST_WRITES;
const BLOCKS_PER_CHUNK = 64;
const CHUNKS = BLOCKS / BLOCKS_PER_CHUNK;
/** Requests use every 680th chunk: to V8, offsets beyond 2 GiB are other numbers than those below. */
const CHUNK_STRIDE = 680;
/** Coprime to BLOCKS: each block comes once in so many requests, and they form no sequence. */
const STRIDE = 1229;
const AREA = "00000000-0000-4000-8000-000000000000" as AreaId;
const geometry = {
  capacityBytes: CHUNKS * CHUNK_STRIDE * 2 ** 18,
  logicalBlockBytes: 512,
  chunkShift: 18,
  blockShift: 12,
};

/** So many requests of 4 KiB, none adjacent to the one before. */
class Load implements RequestSource {
  failed = 0;
  isOver = false;
  #asked = 0;
  readonly #op: number;
  readonly #count: number;

  constructor(op: number, count: number) {
    this.#op = op;
    this.#count = count;
  }

  next(descriptor: Int32Array, result: number): boolean {
    if (result < 0) this.failed++;
    if (this.#asked === this.#count || this.isOver) return false;
    const number = (this.#asked * STRIDE) % BLOCKS;
    const chunk = Math.floor(number / BLOCKS_PER_CHUNK) * CHUNK_STRIDE;
    const block = chunk * BLOCKS_PER_CHUNK + (number % BLOCKS_PER_CHUNK);
    this.#asked++;
    descriptor[0] = this.#op;
    descriptor[1] = SECTORS_PER_BLOCK;
    descriptor[2] = block * SECTORS_PER_BLOCK;
    descriptor[3] = 0;
    return true;
  }
}

/** A front, its image, and everything that they need. */
class World {
  readonly #driver = new DriverStandIn();
  readonly #channel = new MessageChannel();
  readonly #fds: number[] = [];
  /** Accepts writes anywhere, and answers at once; writes to a file in memory would go to threads of io_uring. */
  readonly #disk = openSync("/dev/zero", "r+");
  readonly #reactor: Reactor;
  readonly #idleHandler: number;
  readonly #device: TrackedDevice;
  readonly #front: number;
  readonly #image: number;
  #load: Load | undefined;
  #isOver = false;
  /** The first error. */
  failure: unknown;

  constructor(settings: ReactorSettings, zeroCopy: boolean) {
    this.#fds.push(this.#disk);
    let reactor: Reactor | undefined;
    try {
      reactor = this.#makeReactor();
      this.#reactor = reactor;
      this.#idleHandler = reactor.addHandler({ onCompletion: () => undefined });
      this.#driver.use(reactor);
      this.#front = this.#driver.addDevice(DEPTH, MAX_IO_BYTES);
      this.#image = this.#driver.addDevice(DEPTH, MAX_IO_BYTES);
      this.#device = this.#attach({ ...settings, imageDepth: DEPTH }, zeroCopy);
    } catch (error) {
      this.#release(reactor);
      throw error;
    }
  }

  /** One turn of the ring, without waiting. */
  turn(): void {
    prepareNop(this.#reactor.ring, 0, this.#idleHandler, 0);
    this.#reactor.turn();
  }

  /** Begins nothing new; run() ends soon. */
  giveUp(): void {
    this.#isOver = true;
    if (this.#load !== undefined) this.#load.isOver = true;
  }

  /** Each step is followed by a turn. */
  *run(): Generator<void> {
    try {
      this.#device.start();
      yield* this.#take();
      yield* this.#serve(this.#front, RequestOp.WRITE, FIRST_WRITES);
      yield* this.#serve(this.#front, RequestOp.READ, REQUESTS);
      yield* this.#serve(this.#image, RequestOp.READ, REQUESTS);
      yield* this.#serve(this.#front, RequestOp.WRITE, REQUESTS);
    } catch (error) {
      this.#fail(error);
    }
    yield* this.#end();
  }

  close(): void {
    this.#release(this.#reactor);
  }

  #release(reactor: Reactor | undefined): void {
    reactor?.stop();
    reactor?.turn();
    this.#driver.close();
    this.#channel.port1.close();
    for (const fd of this.#fds) closeSync(fd);
  }

  #makeReactor(): Reactor {
    const wakeFd = createEventFd();
    this.#fds.push(wakeFd);
    return new Reactor({
      entries: RING_ENTRIES,
      filesMax: RING_ENTRIES,
      wakeFd,
      port: this.#channel.port2,
      onMessage: () => undefined,
      onError: (error) => this.#fail(error),
      beforeEnter: this.#driver.beforeEnter,
    });
  }

  #fail(error: unknown): void {
    this.failure ??= error;
    this.giveUp();
  }

  *#serve(charFd: number, op: number, count: number): Generator<void> {
    if (this.#isOver) return;
    yield* this.#idle(charFd);
    const load = new Load(op, count);
    load.isOver = this.#isOver;
    this.#load = load;
    this.#driver.serve(charFd, load);
    yield* this.#idle(charFd);
    if (load.failed > 0) this.#fail(new Error(`${load.failed} requests failed`));
  }

  *#idle(charFd: number): Generator<void> {
    while (this.#driver.idleTags(charFd) < DEPTH) yield;
  }

  *#end(): Generator<void> {
    const device = this.#device;
    const area = device.areaOf(AREA);
    let isAreaGone = area === undefined;
    if (area !== undefined) {
      yield* this.#idle(this.#image);
      this.#driver.end(this.#image);
      area.awaitImageEnd(() =>
        area.drop(() => {
          isAreaGone = true;
        }),
      );
    }
    while (!isAreaGone) yield;
    let isFrontGone = false;
    this.#driver.end(this.#front);
    device.awaitFrontEnd(() => {
      isFrontGone = true;
    });
    while (!isFrontGone) yield;
    area?.close();
    device.close();
    // Lets the ring's next turn submit what they have prepared.
    yield;
  }

  *#take(): Generator<void> {
    if (this.#isOver) return;
    const device = this.#device;
    const mapBytes = DiffAreaMap.byteLength(geometry);
    const setup = {
      id: AREA,
      map: { fd: this.#file("map", mapBytes, firstMapBytes(geometry)), lengthBytes: mapBytes },
      storeCount: 1,
      storeFds: [this.#disk],
      extents: [0, CHUNKS],
      lowWaterSlots: 0,
      wantedSlots: 1,
      wantedSlotsMax: 1,
      slotBytes: 1 << geometry.chunkShift,
      overflow: { policy: OverflowPolicy.BREAK_SNAPSHOT, tickMs: 1000, ticksMax: 1 },
    };
    const map = device.newMap(setup);
    while (map.populateSlice()) yield;
    device.prepareArea(setup, map);
    device.hold(IO_TIMEOUT_MS, () => undefined);
    device.switchAndRelease(AREA);
    const queue = { charFd: this.#image, queueDepth: DEPTH, maxIoBytes: MAX_IO_BYTES };
    device.areaOf(AREA)?.openImage(queue);
  }

  #attach(settings: ReactorSettings, zeroCopy: boolean): TrackedDevice {
    const { capacityBytes } = geometry;
    const lengthBytes = CbtMap.byteLength(capacityBytes, CBT_BLOCK_SHIFT);
    const fd = this.#file("cbt", lengthBytes);
    const memory = MappedMemory.file(fd, 0, lengthBytes);
    const generation = new Uint8Array(16);
    CbtMap.create(memory.buffer, { capacityBytes, blockShift: CBT_BLOCK_SHIFT, generation });
    memory.unmap();
    const request = {
      type: "attach",
      tracker: 0,
      queue: { charFd: this.#front, queueDepth: DEPTH, maxIoBytes: MAX_IO_BYTES, zeroCopy },
      originalFd: this.#disk,
      isBlock: false,
      geometry,
      cbt: { fd, lengthBytes },
      area: undefined,
    } as const;
    const reactor = this.#reactor;
    const ticker = new IoTicker(reactor, IO_TIMEOUT_MS);
    const attach = () => new TrackedDevice(reactor, settings, request, ticker, () => undefined);
    return reactor.attempt(attach);
  }

  /** @param memoryBytes allocated; if there is no memory this throws, where a store would end the process */
  #file(name: string, lengthBytes: number, memoryBytes = lengthBytes): number {
    const fd = createMemoryFile(name);
    this.#fds.push(fd);
    const written = writeSync(fd, new Uint8Array(memoryBytes));
    if (written < memoryBytes) throw new Error(`the file ${name} gets no memory`);
    ftruncateSync(fd, lengthBytes);
    return fd;
  }
}

/** A running warm-up. */
export interface RunningWarmUp {
  /** The reactor is about to end: ends requests in flight now, and frees everything. */
  end(): void;
}

/**
 * @param reactor that of this thread, whose time it uses
 * @param zeroCopy whether fronts use it
 * @param onEnd called once, with the error, or undefined
 * @throws UringError if the machine has no room for another ring
 */
export type StartWarmUp = (
  reactor: Reactor,
  settings: ReactorSettings,
  zeroCopy: boolean,
  onEnd: (failure: unknown) => void,
) => RunningWarmUp;

/** Warms up the thread of a reactor while that has nothing else to do. */
export class WarmUp implements RunningWarmUp {
  readonly #reactor: Reactor;
  readonly #handler: number;
  readonly #onEnd: (failure: unknown) => void;
  readonly #world: World;
  readonly #steps: Generator<void>;
  #seen: number;
  #pauses = 0;
  #busyMs = 0;
  #isGivenUp = false;
  #isEnded = false;

  static start: StartWarmUp = (reactor, settings, zeroCopy, onEnd) =>
    new WarmUp(reactor, settings, zeroCopy, onEnd);

  private constructor(...[reactor, settings, zeroCopy, onEnd]: Parameters<StartWarmUp>) {
    this.#reactor = reactor;
    this.#onEnd = onEnd;
    this.#world = new World(settings, zeroCopy);
    this.#steps = this.#world.run();
    this.#handler = reactor.addHandler({ onCompletion: () => this.#onTurn() });
    this.#seen = reactor.completions;
    this.#arm();
  }

  end(): void {
    this.#giveUp();
    while (!this.#isEnded) this.#step();
  }

  #arm(): void {
    prepareNop(this.#reactor.ring, 0, this.#handler, 0);
  }

  #onTurn(): void {
    if (this.#isEnded) return;
    const isBusy = this.#reactor.completions - this.#seen > 1;
    this.#seen = this.#reactor.completions;
    if (isBusy && this.#pauses < PAUSES_MAX) {
      this.#pauses++;
      this.#reactor.setTimer(PAUSE_MS, () => this.#onTurn());
      return;
    }
    if (isBusy || this.#busyMs > BUSY_MS_MAX) this.#giveUp();
    this.#step();
    if (this.#isEnded) this.#reactor.removeHandler(this.#handler);
    else this.#arm();
  }

  #giveUp(): void {
    if (this.#isGivenUp) return;
    this.#isGivenUp = true;
    this.#busyMs = 0;
    this.#world.giveUp();
  }

  #step(): void {
    const begunMs = performance.now();
    try {
      const isOver = this.#steps.next().done === true;
      this.#world.turn();
      if (isOver) {
        this.#world.close();
        this.#finish(this.#world.failure);
      }
    } catch (error) {
      // Requests that are still in flight keep their memory and files until the process ends.
      this.#finish(error);
    }
    this.#busyMs += performance.now() - begunMs;
    if (this.#isEnded || !this.#isGivenUp || this.#busyMs <= END_TIMEOUT_MS) return;
    this.#finish(this.#world.failure ?? new Error("it does not end"));
  }

  #finish(failure: unknown): void {
    this.#isEnded = true;
    this.#onEnd(failure);
  }
}
