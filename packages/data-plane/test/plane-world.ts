/** A tracked device in a snapshot, with its image, over files in memory, and a stand-in for the driver. */
import { closeSync, ftruncateSync } from "node:fs";
import { MessageChannel } from "node:worker_threads";
import { CbtMap, DiffAreaMap } from "@blksnap/engine";
import { createMemoryFile, MappedMemory, Reactor, type Ring } from "@blksnap/uring";
import { native } from "../../uring/dist/native.js";
import { IoTicker } from "../dist/io-ticker.js";
import type { JournalSetup } from "../dist/journal-io.js";
import type { ReactorNotice } from "../dist/messages.js";
import { TrackedDevice } from "../dist/tracked-device.js";
import { prepareArea } from "./device-settings.js";

const MIB = 2 ** 20;
export const CHUNK_BYTES: number = 2 ** 18;
/** Of a log that never fills. */
const LOG_BYTES = 2 ** 30;
const AREA = "11111111-1111-4111-8111-111111111111";
/** Nothing is late, and no tick of the clock is counted. */
const IO_TIMEOUT_MS = 10_000_000;

/** What the world needs of DriverStandIn or FakeUblk. */
export interface PlaneDriver {
  readonly beforeEnter: (ring: Ring) => void;
  use(reactor: Reactor): void;
  addDevice(depth: number, maxIoBytes: number): number;
  close(): void;
}

export interface PlaneOptions {
  readonly capacityBytes: number;
  readonly queueDepth: number;
  readonly zeroCopy?: boolean;
  /** The tracker and its snapshot have journals, whose logs never fill. */
  readonly persistent?: boolean;
}

export class PlaneWorld {
  readonly notices: ReactorNotice[] = [];
  readonly reactor: Reactor;
  readonly front: number;
  readonly image: number;
  readonly #driver: PlaneDriver;
  readonly #device: TrackedDevice;
  readonly #capacityBytes: number;
  readonly #queue: { queueDepth: number; maxIoBytes: number };
  readonly #isPersistent: boolean;
  readonly #fds: number[] = [];
  readonly #channel = new MessageChannel();

  constructor(driver: PlaneDriver, options: PlaneOptions) {
    const { capacityBytes, queueDepth, zeroCopy = false, persistent = false } = options;
    this.#isPersistent = persistent;
    this.#driver = driver;
    this.#capacityBytes = capacityBytes;
    this.#queue = { queueDepth, maxIoBytes: MIB };
    const wakeFd = native.eventFd(0, 0o2000000);
    this.#fds.push(wakeFd);
    this.reactor = new Reactor({
      wakeFd,
      port: this.#channel.port2,
      onMessage: () => undefined,
      onError: (error) => {
        throw error;
      },
      beforeEnter: driver.beforeEnter,
    });
    driver.use(this.reactor);
    this.front = driver.addDevice(queueDepth, MIB);
    this.image = driver.addDevice(queueDepth, MIB);
    this.#device = this.#attach(zeroCopy);
    prepareArea(this.#device, this.#area());
    this.#device.hold(IO_TIMEOUT_MS, () => undefined);
    this.#device.switchAndRelease(AREA);
    this.#device.areaOf(AREA)?.openImage({ charFd: this.image, ...this.#queue });
  }

  /** How many copies and takes were timed. */
  get timed(): { copies: number; takes: number } {
    const { copy, takeStall } = this.#device.counters().durations;
    const [copies = 0, takes = 0] = [copy, takeStall].map(({ buckets }) =>
      buckets.reduce((sum, count) => sum + count, 0),
    );
    return { copies, takes };
  }

  /** Copies that went behind their write. */
  get copiesBehind(): number {
    return this.#device.counters().engine.copiesBehind;
  }

  /** What is in flight may keep the files open for a while: their memory is freed here. */
  close(): void {
    this.reactor.ring.close();
    this.#driver.close();
    const [wakeFd, ...files] = this.#fds as [number, ...number[]];
    closeSync(wakeFd);
    for (const fd of files) {
      ftruncateSync(fd, 0);
      closeSync(fd);
    }
    this.#channel.port1.close();
  }

  get #geometry() {
    const shifts = { chunkShift: 18, blockShift: 12 };
    return { capacityBytes: this.#capacityBytes, logicalBlockBytes: 512, ...shifts };
  }

  #attach(zeroCopy: boolean): TrackedDevice {
    const capacityBytes = this.#capacityBytes;
    const lengthBytes = CbtMap.byteLength(capacityBytes, 16);
    const fd = this.#file("cbt", lengthBytes);
    const memory = MappedMemory.file(fd, 0, lengthBytes);
    const generation = Uint8Array.from({ length: 16 }, (_, index) => index);
    CbtMap.create(memory.buffer, { capacityBytes, blockShift: 16, generation });
    const heartbeat = new SharedArrayBuffer(4);
    const limits = { imageDepth: this.#queue.queueDepth, ioTimeoutMs: IO_TIMEOUT_MS };
    const request = {
      type: "attach",
      tracker: 1,
      queue: { charFd: this.front, ...this.#queue, zeroCopy },
      originalFd: this.#file("original", capacityBytes),
      isBlock: false,
      geometry: this.#geometry,
      cbt: { fd, lengthBytes },
      area: undefined,
      ...(this.#isPersistent ? { journal: this.#journal() } : {}),
    } as const;
    const ticker = new IoTicker(this.reactor, IO_TIMEOUT_MS);
    const tell = (notice: ReactorNotice) => this.notices.push(notice);
    const settings = { index: 0, ...limits, heartbeat, ringEntries: 256 };
    const device = new TrackedDevice(this.reactor, settings, request, ticker, tell);
    device.start();
    return device;
  }

  #journal(): JournalSetup {
    const log = { logOffsetBytes: 0, logBytes: LOG_BYTES, usedSectors: 0 };
    const id = new Array<number>(16).fill(1);
    return { fd: this.#file("log", LOG_BYTES), ...log, id, nextSequence: 1, nextCommit: 1 };
  }

  #area() {
    const geometry = this.#geometry;
    const storeFd = this.#file("store", geometry.capacityBytes);
    const kept = { journal: this.#journal(), syncFds: [storeFd] };
    const lengthBytes = DiffAreaMap.byteLength(geometry);
    return {
      id: AREA,
      map: { fd: this.#file("map", lengthBytes), lengthBytes },
      storeCount: 1,
      storeFds: [storeFd],
      ...(this.#isPersistent ? kept : {}),
      extents: [0, geometry.capacityBytes / CHUNK_BYTES],
      lowWaterSlots: 0,
      wantedSlots: 1,
      wantedSlotsMax: 1,
      slotBytes: CHUNK_BYTES,
      overflow: { policy: 0, tickMs: 100, ticksMax: 1 },
    };
  }

  #file(name: string, lengthBytes: number): number {
    const fd = createMemoryFile(name);
    ftruncateSync(fd, lengthBytes);
    this.#fds.push(fd);
    return fd;
  }
}
