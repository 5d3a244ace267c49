// What one request costs a reactor in JavaScript: the data plane on a real ring, over files in memory, with a
// stand-in for the ublk driver that has the next request ready. In a process of its own, so that it begins cold.
//
//     native.enter ──▶ t0 … handlers … t1 ──▶ native.enter      counted: t1 - t0, whatever the kernel takes
//
// Prints one JSON object: by kind of request, microseconds of the first ones and of warm ones.
import { ftruncateSync, writeSync } from "node:fs";
import { MessageChannel } from "node:worker_threads";
import { CbtMap, DiffAreaMap, RequestOp } from "@blksnap/engine";
import { createMemoryFile, MappedMemory, prepareNop, Reactor } from "@blksnap/uring";
import { native } from "@blksnap/uring/testing";

const plane = (name) => import(new URL(`../../packages/data-plane/dist/${name}`, import.meta.url));
const { IoTicker } = await plane("io-ticker.js");
const { TrackedDevice } = await plane("tracked-device.js");

const MIB = 2 ** 20;
const CAPACITY_BYTES = 1024 * MIB;
const BLOCK_BYTES = 4096;
const SECTORS_PER_BLOCK = 8;
/** Requests go to this many blocks, each once for each kind: a first write finds nothing saved. */
const BLOCKS = (256 * MIB) / BLOCK_BYTES;
const DEPTH = 32;
const BATCH = 512;
const FIRST = 2048;
const REQUESTS = 32_768;
const IO_TIMEOUT_MS = 10_000_000;
const URING_CMD = 46;
const AREA = "11111111-1111-4111-8111-111111111111";
const geometry = {
  capacityBytes: CAPACITY_BYTES,
  logicalBlockBytes: 512,
  chunkShift: 18,
  blockShift: 12,
};
const { READ, WRITE } = RequestOp;

function memoryFile(name, lengthBytes) {
  const fd = createMemoryFile(name);
  ftruncateSync(fd, lengthBytes);
  return fd;
}

/** Stands in for the driver: each tag whose command comes gets the next request, or waits for the next load. */
class StandIn {
  constructor(reactor) {
    this.reactor = reactor;
    this.devices = new Map();
    this.keptHandler = reactor.addHandler({ onCompletion: () => undefined });
    this.active = undefined;
    this.left = 0;
    this.done = 0;
    this.block = 0;
    this.busyMs = 0;
    this.since = 0;
    this.marks = new Float64Array(REQUESTS / BATCH);
    const { enter } = native;
    native.enter = (fd, toSubmit, minComplete, flags) => {
      if (this.since > 0) this.busyMs += performance.now() - this.since;
      this.takeCommands();
      const status = enter(fd, toSubmit, minComplete, flags);
      this.since = performance.now();
      return status;
    };
  }

  addDevice() {
    const charFd = memoryFile("ublkc", MIB);
    const descriptors = new Int32Array(MappedMemory.file(charFd, 0, MIB).buffer);
    this.devices.set(charFd, { descriptors, kept: [] });
    return charFd;
  }

  takeCommands() {
    const { sqes32: words, sqEntries, sqeWords } = this.reactor.ring;
    for (let sqe = 0; sqe < sqEntries * sqeWords; sqe += sqeWords) {
      if ((words[sqe] & 0xff) !== URING_CMD) continue;
      const device = this.devices.get(words[sqe + 1]);
      const tag = words[sqe + 12] >>> 16;
      const [low, high] = [words[sqe + 8], words[sqe + 9]];
      if (device === this.active) this.noteDone();
      const isNext = device === this.active && this.left > 0;
      if (isNext) this.deliver(device, tag);
      else device.kept.push([tag, low, high]);
      words.fill(0, sqe, sqe + sqeWords);
      words[sqe + 1] = -1;
      words[sqe + 8] = isNext ? low : 0;
      words[sqe + 9] = isNext ? high : this.keptHandler;
    }
  }

  noteDone() {
    this.done++;
    if (this.done % BATCH === 0) this.marks[this.done / BATCH - 1] = this.busyMs;
  }

  /** A block of its own for each request of a load: an odd step visits all. */
  deliver({ descriptors }, tag) {
    this.left--;
    this.block = (this.block + 40_503) % BLOCKS;
    descriptors[tag * 6] = this.op;
    descriptors[tag * 6 + 1] = SECTORS_PER_BLOCK;
    descriptors[tag * 6 + 2] = this.block * SECTORS_PER_BLOCK;
  }

  /** Microseconds for each request: the first ones, and those of a batch that nothing has disturbed. */
  run(charFd, op) {
    const device = this.devices.get(charFd);
    while (device.kept.length < DEPTH) this.reactor.turn();
    Object.assign(this, {
      op,
      block: 0,
      left: REQUESTS,
      done: 0,
      busyMs: 0,
      since: 0,
      active: device,
    });
    for (const [tag, low, high] of device.kept.splice(0)) {
      this.deliver(device, tag);
      prepareNop(this.reactor.ring, low, high, 0);
    }
    while (this.done < REQUESTS) this.reactor.turn();
    this.active = undefined;
    const batches = this.marks.map(
      (mark, index) => mark - (index === 0 ? 0 : this.marks[index - 1]),
    );
    const warm = batches.slice(FIRST / BATCH).sort();
    return {
      first: (this.marks[FIRST / BATCH - 1] / FIRST) * 1000,
      warm: (warm[warm.length >> 2] / BATCH) * 1000,
    };
  }
}

function attach(reactor, charFd) {
  const cbtBytes = CbtMap.byteLength(CAPACITY_BYTES, 16);
  const cbtFd = memoryFile("cbt", cbtBytes);
  const generation = new Uint8Array(16).fill(1);
  const { buffer } = MappedMemory.file(cbtFd, 0, cbtBytes);
  CbtMap.create(buffer, { capacityBytes: CAPACITY_BYTES, blockShift: 16, generation });
  const originalFd = memoryFile("original", CAPACITY_BYTES);
  const bytes = Buffer.alloc(MIB, 7);
  for (let at = 0; at < BLOCKS * BLOCK_BYTES; at += MIB) writeSync(originalFd, bytes, 0, MIB, at);
  const request = {
    type: "attach",
    tracker: 1,
    queue: { charFd, queueDepth: DEPTH, maxIoBytes: 512 * 1024 },
    originalFd,
    isBlock: false,
    geometry,
    cbt: { fd: cbtFd, lengthBytes: cbtBytes },
  };
  const settings = { index: 0, imageDepth: DEPTH, ioTimeoutMs: IO_TIMEOUT_MS };
  const ticker = new IoTicker(reactor, IO_TIMEOUT_MS);
  const device = new TrackedDevice(reactor, settings, request, ticker, () => undefined);
  device.start();
  return device;
}

function take(device, charFd) {
  const mapBytes = DiffAreaMap.byteLength(geometry);
  const setup = {
    id: AREA,
    map: { fd: memoryFile("map", mapBytes), lengthBytes: mapBytes },
    storeCount: 1,
    storeFds: [memoryFile("store", CAPACITY_BYTES)],
    extents: [0, CAPACITY_BYTES >> geometry.chunkShift],
    lowWaterSlots: 0,
    wantedSlots: 1,
    wantedSlotsMax: 1,
    slotBytes: 2 ** geometry.chunkShift,
    overflow: { policy: 0, tickMs: 100, ticksMax: 1 },
  };
  const map = device.newMap(setup);
  while (map.takeSlice());
  device.prepareArea(setup, map);
  device.hold(IO_TIMEOUT_MS, () => undefined);
  device.switchAndRelease(AREA);
  device.areaOf(AREA).openImage({ charFd, queueDepth: DEPTH, maxIoBytes: 512 * 1024 });
}

const { port2: port } = new MessageChannel();
const onError = (error) => {
  throw error;
};
const wakeFd = native.eventFd(0, 0);
const reactor = new Reactor({ wakeFd, port, onMessage: () => undefined, onError });
const standIn = new StandIn(reactor);
const front = standIn.addDevice();
const image = standIn.addDevice();
const device = attach(reactor, front);
const results = { "front read": standIn.run(front, READ) };
take(device, image);
results["image read, original"] = standIn.run(image, READ);
results["first write"] = standIn.run(front, WRITE);
results["write again"] = standIn.run(front, WRITE);
results["image read, slots"] = standIn.run(image, READ);
process.stdout.write(JSON.stringify(results), () => process.exit(0));
