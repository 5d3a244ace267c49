/** A tracked device on a real ring, with memory files in place of its devices. */
import { closeSync, ftruncateSync, openSync, readFileSync } from "node:fs";
import { MessageChannel } from "node:worker_threads";
import { AreaState, CbtMap, DiffAreaMap } from "@blksnap/engine";
import { readLog } from "@blksnap/journal";
import { createMemoryFile, MappedMemory, Reactor, tryLockFile } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { native } from "../../uring/dist/native.js";
import { carryOutArea } from "../dist/area-requests.js";
import { IoTicker } from "../dist/io-ticker.js";
import { encodeAreaLost } from "../dist/journal-entries.js";
import type { AreaSetup, AttachRequest, ReactorNotice } from "../dist/messages.js";
import { QueueMemory } from "../dist/queue-memory.js";
import { TrackedDevice } from "../dist/tracked-device.js";
import { prepareArea, reactorSettings, SLOTS } from "./device-settings.js";

const MIB = 2 ** 20;
const LOG_BYTES = 64 * 1024;
type Entry = [op: number, a: number, b: number, c: number];
const ID = Array.from({ length: 16 }, (_, index) => index);
const AREA = "11111111-1111-4111-8111-111111111111";
const OTHER_AREA = "22222222-2222-4222-8222-222222222222";
const ANOTHER = "22222222-2222-4222-8222-222222222222";
const GRANT = { type: "grant", tracker: 1, firstSlot: 0, count: 1, errno: 0 } as const;
const GEOMETRY = {
  capacityBytes: 4 * MIB,
  logicalBlockBytes: 512,
  chunkShift: 18,
  blockShift: 12,
};

/** Makes memory files, whose locks show whether they are open. */
class World {
  readonly notices: ReactorNotice[] = [];
  readonly errors: unknown[] = [];
  readonly reactor: Reactor;
  readonly #fds: number[] = [];
  readonly #port = new MessageChannel();

  constructor() {
    const wakeFd = native.eventFd(0, 0o2000000);
    this.#fds.push(wakeFd);
    this.reactor = new Reactor({
      wakeFd,
      port: this.#port.port2,
      onMessage: () => undefined,
      onError: (error) => this.errors.push(error),
    });
  }

  file(name: string, lengthBytes: number): number {
    const fd = createMemoryFile(name);
    ftruncateSync(fd, lengthBytes);
    this.#fds.push(fd);
    return fd;
  }

  /** A file to hand over, and to close here after that; `isHeld` tells whether it is still open anywhere. */
  handedOver(name: string): { fd: number; close: () => void; isHeld: () => boolean } {
    const fd = createMemoryFile(name);
    ftruncateSync(fd, GEOMETRY.capacityBytes);
    // Another open file of the same inode: it gets the lock when the first is closed.
    const other = openSync(`/proc/self/fd/${fd}`, "r+");
    this.#fds.push(other);
    assert.ok(tryLockFile(fd));
    return { fd, close: () => closeSync(fd), isHeld: () => !tryLockFile(other) };
  }

  cbt(): { fd: number; lengthBytes: number } {
    const { capacityBytes } = GEOMETRY;
    const lengthBytes = CbtMap.byteLength(capacityBytes, 16);
    const fd = this.file("cbt", lengthBytes);
    const memory = MappedMemory.file(fd, 0, lengthBytes);
    const generation = Uint8Array.from(ID);
    CbtMap.create(memory.buffer, { capacityBytes, blockShift: 16, generation });
    return { fd, lengthBytes };
  }

  /** @param faultErrno of a block that the last daemon lost; undefined: the file is not a map */
  area(faultErrno: number | undefined, storeFds: number[]): AreaSetup {
    const lengthBytes = DiffAreaMap.byteLength(GEOMETRY);
    const fd = this.file("map", lengthBytes);
    if (faultErrno !== undefined) {
      const memory = MappedMemory.file(fd, 0, lengthBytes);
      const map = DiffAreaMap.create(memory.buffer, GEOMETRY);
      map.setState(AreaState.ACTIVE);
      map.setFaultErrno(faultErrno);
    }
    return {
      id: AREA,
      map: { fd, lengthBytes },
      storeCount: storeFds.length,
      storeFds,
      ...SLOTS,
      slotBytes: 2 ** GEOMETRY.chunkShift,
    };
  }

  attachRequest(originalFd: number, more: Partial<AttachRequest> = {}): AttachRequest {
    return {
      type: "attach",
      tracker: 1,
      // No ublk device: the kernel refuses its commands, and the queue ends.
      queue: { charFd: this.file("ublkc", MIB), queueDepth: 4, maxIoBytes: 65_536 },
      originalFd,
      isBlock: false,
      geometry: GEOMETRY,
      cbt: this.cbt(),
      area: undefined,
      ...more,
    };
  }

  attach(request: AttachRequest, memory?: QueueMemory): TrackedDevice {
    const settings = reactorSettings();
    const ticker = new IoTicker(this.reactor, settings.ioTimeoutMs);
    const notify = (notice: ReactorNotice) => this.tell(notice);
    return this.reactor.attempt(
      () => new TrackedDevice(this.reactor, settings, request, ticker, notify, memory),
    );
  }

  tell(notice: ReactorNotice): void {
    this.notices.push(notice);
    if (notice.notice === "frontEnded") this.reactor.stop();
  }

  close(): void {
    for (const fd of this.#fds) closeSync(fd);
    this.#port.port1.close();
  }
}

test("a device that cannot be made closes its original and its stores", () => {
  const world = new World();
  const original = world.handedOver("original");
  const store = world.handedOver("store");
  const area = world.area(undefined, [store.fd]);
  for (let i = 0; i < 3; i++) {
    assert.throws(() => world.attach(world.attachRequest(original.fd, { area })));
  }
  original.close();
  store.close();
  assert.not(original.isHeld());
  assert.not(store.isHeld());
  world.close();
});

/** How many mappings of files with this name the process has. */
function mappings(name: string): number {
  return readFileSync("/proc/self/maps", "utf8").split(`memfd:${name} `).length - 1;
}

const BUFFERS = { units: 4, unitBytes: 65_536, lengthBytes: 4 * 65_536 };

/** Uses up all handlers. */
function fill(reactor: Reactor): void {
  const isFull = (): boolean => {
    try {
      reactor.addHandler({ onCompletion: () => undefined });
      return false;
    } catch {
      return true;
    }
  };
  while (!isFull());
}

test("a device that cannot be made leaves no memory behind", () => {
  const world = new World();
  const request = world.attachRequest(world.file("original", GEOMETRY.capacityBytes), {
    area: world.area(undefined, [world.file("store", MIB)]),
  });
  const memory = new QueueMemory(world.reactor, BUFFERS);
  const { buffer } = memory.handOver().memory;
  const before = [mappings("cbt"), mappings("map")];
  assert.throws(() => world.attach(request, memory));
  assert.equal([mappings("cbt"), mappings("map")], before);
  assert.is(buffer.byteLength, 0);
  world.close();
});

test("an image that does not fit into a full reactor takes nothing from it", () => {
  const world = new World();
  const { reactor } = world;
  const device = world.attach(world.attachRequest(world.file("original", GEOMETRY.capacityBytes)));
  prepareArea(device, world.area(undefined, [world.file("store", MIB)]));
  fill(reactor);
  const place = (): number => {
    const { address, lengthBytes } = MappedMemory.anonymous(4096);
    const index = reactor.addBuffer(address, lengthBytes);
    reactor.removeBuffer(index);
    return index;
  };
  const before = place();
  const memory = new QueueMemory(reactor, BUFFERS);
  const { buffer } = memory.handOver().memory;
  const start = { charFd: world.file("ublkc", MIB), queueDepth: 4, maxIoBytes: 65_536 };
  assert.throws(
    () => device.areaOf(AREA)?.openImage(start, memory),
    (error: { code?: string }) => error.code === "REACTOR_FULL",
  );
  assert.is(place(), before);
  assert.is(buffer.byteLength, 0);
  world.close();
});

test("an area that cannot be prepared leaves the device without one, and closes its stores", () => {
  const world = new World();
  const device = world.attach(world.attachRequest(world.file("original", GEOMETRY.capacityBytes)));
  const store = world.handedOver("store");
  const area = world.area(undefined, [store.fd]);
  const short = { ...area, map: { fd: area.map.fd, lengthBytes: 4096 } };
  for (let i = 0; i < 3; i++) {
    assert.throws(
      () => prepareArea(device, short),
      (error: Error) => !/already/.test(error.message),
    );
  }
  store.close();
  assert.not(store.isHeld());
  world.close();
});

test("requests that name another area do not affect the present one, and its successor can come after its end", () => {
  const world = new World();
  const device = world.attach(world.attachRequest(world.file("original", GEOMETRY.capacityBytes)));
  const setup = world.area(undefined, [world.file("store", MIB)]);
  const ask = (type: "dropArea" | "closeArea" | "lostRanges" | "awaitImageEnd", area: string) => {
    const answers: unknown[] = [];
    carryOutArea(
      device,
      { type, tracker: 1, area },
      (answer) => answers.push(answer),
      () => true,
    );
    return answers;
  };
  prepareArea(device, setup);
  assert.throws(() => prepareArea(device, { ...setup, id: ANOTHER }), /diff area already/);
  device.hold(10_000, () => undefined);
  assert.throws(() => device.switchAndRelease(ANOTHER), /no such area/);
  device.switchAndRelease(AREA);
  assert.equal(ask("dropArea", ANOTHER), [undefined]);
  assert.equal(ask("closeArea", ANOTHER), [{ isLate: null }]);
  assert.equal(ask("lostRanges", ANOTHER), [[]]);
  assert.equal(ask("awaitImageEnd", ANOTHER), [undefined]);
  assert.is(device.areaOf(AREA)?.isOpen, true);
  assert.is(device.counters().area.id, AREA);

  assert.equal(ask("dropArea", AREA), [undefined]);
  assert.equal(ask("closeArea", AREA), [{ isLate: false }]);
  assert.equal(ask("closeArea", AREA), [{ isLate: false }]);
  assert.is(device.counters().area.id, null);
  device.areaOf(AREA)?.grant({ ...GRANT, area: AREA });
  prepareArea(device, { ...world.area(undefined, [world.file("store", MIB)]), id: ANOTHER });
  assert.is(device.areaOf(AREA), undefined);
  assert.is(device.counters().area.id, ANOTHER);
  assert.equal(world.errors, []);
  world.close();
});

test("the end of a front is reported, and its original keeps its index until the device is closed", () => {
  const world = new World();
  const original = world.handedOver("original");
  const device = world.attach(world.attachRequest(original.fd));
  original.close();
  device.start();
  world.reactor.run();
  const ends = world.notices.filter(({ notice }) => notice === "frontEnded");
  assert.equal(ends, [{ notice: "frontEnded", tracker: 1 }]);
  // Images may still read it by that index: no other file has got it.
  assert.ok(original.isHeld());
  let isTold = false;
  device.awaitFrontEnd(() => {
    isTold = true;
  });
  assert.ok(isTold);
  world.close();
});

test("areas that do not continue are recorded as lost before the first write, and in a longer log", () => {
  for (const lostAreas of [[], [AREA], [AREA, OTHER_AREA]]) {
    const world = new World();
    const log = world.file("log", LOG_BYTES);
    const device = world.attach(
      world.attachRequest(world.file("original", GEOMETRY.capacityBytes), {
        lostAreas,
        journal: {
          ...{ fd: log, logOffsetBytes: 0, logBytes: LOG_BYTES, usedSectors: 0 },
          ...{ id: ID, nextSequence: 1, nextCommit: 1 },
        },
      }),
    );
    const { journal } = device.gate ?? {};
    assert.is(journal?.io.isBusy, lostAreas.length > 0, "a write waits for it");
    const longer = world.file("longer", LOG_BYTES);
    const place = { fd: longer, logOffsetBytes: 0, logBytes: LOG_BYTES, usedSectors: 0 };
    let first: number | null = null;
    const mirrored = (sequence: number | null): void => {
      first = sequence;
      world.reactor.setTimer(0, () => journal?.whenCommitted(() => world.reactor.stop()));
    };
    const mirror = (): void => journal?.mirror(place, mirrored);
    world.reactor.setTimer(0, () => journal?.whenCommitted(() => journal.io.whenIdle(mirror)));
    world.reactor.run();
    const expected: Entry[] = [];
    for (const area of lostAreas) encodeAreaLost(area, (...entry) => expected.push(entry));
    for (const [fd, sequence] of [
      [log, 1],
      [longer, first ?? 0],
    ] as const) {
      const entries: Entry[] = [];
      const bytes = new Uint8Array(readFileSync(`/proc/self/fd/${fd}`));
      readLog(bytes, Uint8Array.from(ID), sequence, (...entry) => entries.push(entry));
      assert.equal(entries.slice(0, expected.length), expected);
    }
    assert.equal(world.errors, []);
    world.close();
  }
});

test("losses under an earlier daemon are recorded before a copy begins, and no others", () => {
  for (const faultErrno of [0, 28]) {
    const world = new World();
    const log = world.file("log", LOG_BYTES);
    const areaLog = world.file("area-log", LOG_BYTES);
    const place = { logOffsetBytes: 0, logBytes: LOG_BYTES, usedSectors: 0 };
    const numbers = { id: ID, nextSequence: 1, nextCommit: 1 };
    const area = {
      ...world.area(faultErrno, [world.file("store", MIB)]),
      journal: { fd: areaLog, ...place, ...numbers },
    };
    const device = world.attach(
      world.attachRequest(world.file("original", GEOMETRY.capacityBytes), {
        area,
        journal: { fd: log, ...place, ...numbers },
      }),
    );
    device.wakeArea(area);
    world.reactor.setTimer(0, () => device.gate?.journal.whenCommitted(() => world.reactor.stop()));
    world.reactor.run();
    const entries: Entry[] = [];
    const bytes = new Uint8Array(readFileSync(`/proc/self/fd/${log}`));
    readLog(bytes, Uint8Array.from(ID), 1, (...entry) => entries.push(entry));
    const expected: Entry[] = [];
    if (faultErrno !== 0) encodeAreaLost(AREA, (...entry) => expected.push(entry));
    assert.equal(entries, expected);
    assert.equal(world.errors, []);
    world.close();
  }
});

test.run();
