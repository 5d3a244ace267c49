// What one request costs a reactor in JavaScript: the data plane on a real ring, over files in memory, with a
// stand-in for the ublk driver that has the next request ready. In a process of its own, so that it begins cold.
//
//     native.enter ──▶ t0 … handlers … t1 ──▶ native.enter      counted: t1 - t0, whatever the kernel takes
//
// Prints one JSON object: by kind of request, microseconds of the first ones and of warm ones.
import { ftruncateSync, writeSync } from "node:fs";
import { MessageChannel } from "node:worker_threads";
import { CbtMap, DiffAreaMap, RequestOp } from "@blksnap/engine";
import { DriverStandIn } from "@blksnap/ublk";
import { createMemoryFile, MappedMemory, Reactor } from "@blksnap/uring";
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
const MAX_IO_BYTES = 512 * 1024;
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

/** Has the next request ready for each tag, and times what the reactor does between two system calls. */
class Loads {
  constructor() {
    this.driver = new DriverStandIn();
    this.left = 0;
    this.done = 0;
    this.block = 0;
    this.busyMs = 0;
    this.since = 0;
    this.marks = new Float64Array(REQUESTS / BATCH);
    const { enter } = native;
    native.enter = (fd, toSubmit, minComplete, flags) => {
      const status = enter(fd, toSubmit, minComplete, flags);
      this.since = performance.now();
      return status;
    };
  }

  beforeEnter = (ring) => {
    if (this.since > 0) this.busyMs += performance.now() - this.since;
    this.driver.beforeEnter(ring);
  };

  use(reactor) {
    this.reactor = reactor;
    this.driver.use(reactor);
  }

  /** A block of its own for each request of a load: an odd step visits all. */
  next(descriptor) {
    if (this.left <= REQUESTS - DEPTH) this.noteDone();
    if (this.left === 0) return false;
    this.left--;
    this.block = (this.block + 40_503) % BLOCKS;
    descriptor[0] = this.op;
    descriptor[1] = SECTORS_PER_BLOCK;
    descriptor[2] = this.block * SECTORS_PER_BLOCK;
    return true;
  }

  noteDone() {
    this.done++;
    if (this.done % BATCH === 0) this.marks[this.done / BATCH - 1] = this.busyMs;
  }

  /** Microseconds for each request: the first ones, and those of a batch that nothing has disturbed. */
  run(charFd, op) {
    const { driver, reactor } = this;
    while (driver.idleTags(charFd) < DEPTH) reactor.turn();
    Object.assign(this, { op, block: 0, left: REQUESTS, done: 0, busyMs: 0, since: 0 });
    driver.serve(charFd, this);
    while (driver.idleTags(charFd) < DEPTH) reactor.turn();
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
    queue: { charFd, queueDepth: DEPTH, maxIoBytes: MAX_IO_BYTES },
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
  while (map.populateSlice());
  device.prepareArea(setup, map);
  device.hold(IO_TIMEOUT_MS, () => undefined);
  device.switchAndRelease(AREA);
  device.areaOf(AREA).openImage({ charFd, queueDepth: DEPTH, maxIoBytes: MAX_IO_BYTES });
}

const { port2: port } = new MessageChannel();
const onError = (error) => {
  throw error;
};
const wakeFd = native.eventFd(0, 0);
const loads = new Loads();
const { beforeEnter } = loads;
const reactor = new Reactor({ wakeFd, port, onMessage: () => undefined, onError, beforeEnter });
loads.use(reactor);
const front = loads.driver.addDevice(DEPTH, MAX_IO_BYTES);
const image = loads.driver.addDevice(DEPTH, MAX_IO_BYTES);
const device = attach(reactor, front);
const results = { "front read": loads.run(front, READ) };
take(device, image);
results["image read, original"] = loads.run(image, READ);
results["first write"] = loads.run(front, WRITE);
results["write again"] = loads.run(front, WRITE);
results["image read, slots"] = loads.run(image, READ);
process.stdout.write(JSON.stringify(results), () => process.exit(0));
