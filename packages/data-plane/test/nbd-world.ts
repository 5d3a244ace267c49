/** A device with NBD clients, on a real ring, with files in memory in place of devices. */
import { closeSync, ftruncateSync, mkdtempSync, readSync, rmSync, writeSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MessageChannel } from "node:worker_threads";
import { CbtMap, DiffAreaMap } from "@blksnap/engine";
import {
  createMemoryFile,
  listenLocal,
  MappedMemory,
  PromiseRing,
  prepareAccept,
  Reactor,
} from "@blksnap/uring";
import * as assert from "uvu/assert";
import { native } from "../../uring/dist/native.js";
import type { KnownHoles } from "../dist/allocation-context.js";
import { carryOutArea } from "../dist/area-requests.js";
import type { DeviceQueueStart } from "../dist/device-queue.js";
import { IoTicker } from "../dist/io-ticker.js";
import type { ReactorNotice } from "../dist/messages.js";
import { TrackedDevice } from "../dist/tracked-device.js";
import { prepareArea, reactorSettings, SLOTS } from "./device-settings.js";

export const MIB = 2 ** 20;
export const BLOCK = 65_536;
export const AREA = "11111111-1111-4111-8111-111111111111";
const GEOMETRY = {
  capacityBytes: 4 * MIB,
  logicalBlockBytes: 512,
  chunkShift: 18,
  blockShift: 12,
};
export const PARAMS = {
  capacityBytes: GEOMETRY.capacityBytes,
  logicalBlockBytes: 512,
  physicalBlockBytes: 512,
  ioMinBytes: 512,
  ioOptBytes: 0,
  readOnly: true,
  rotational: false,
  volatileCache: false,
  fua: false,
  discardMaxBytes: 0,
  discardGranularityBytes: 0,
  writeZeroesMaxBytes: 0,
};
export const READ = 0;
export const WRITE = 1;
export const BLOCK_STATUS = 7;
/** Ends a test that hangs. */
const LIMIT_MS = 600_000;
const EAGAIN = "EAGAIN";
export const NOTHING = new Uint8Array(0);

function file(name: string, lengthBytes: number): number {
  const fd = createMemoryFile(name);
  ftruncateSync(fd, lengthBytes);
  return fd;
}

/** A tracked device in a snapshot, written once before the take. */
export class World {
  readonly errors: unknown[] = [];
  readonly original: number = file("original", GEOMETRY.capacityBytes);
  readonly reactor: Reactor;
  readonly device: TrackedDevice;
  readonly #port = new MessageChannel();
  #isOver = false;

  /** @param queue of the front; without a device it is an export that clients write to */
  constructor(
    queue: DeviceQueueStart = { charFd: file("ublkc", MIB), queueDepth: 4, maxIoBytes: BLOCK },
  ) {
    this.reactor = new Reactor({
      wakeFd: native.eventFd(0, 0o2000000),
      port: this.#port.port2,
      onMessage: () => undefined,
      onError: (error) => this.errors.push(error),
    });
    // A turn may wait without end.
    this.reactor.setTimer(LIMIT_MS, () => {
      this.#isOver = true;
    });
    const settings = reactorSettings();
    const ticker = new IoTicker(this.reactor, settings.ioTimeoutMs);
    const notify = (notice: ReactorNotice): void => {
      if (notice.notice === "error") this.errors.push(notice.message);
    };
    writeSync(this.original, Buffer.alloc(GEOMETRY.capacityBytes, 7), 0, MIB * 4, 0);
    const lengthBytes = CbtMap.byteLength(GEOMETRY.capacityBytes, 16);
    const cbt = file("cbt", lengthBytes);
    CbtMap.create(MappedMemory.file(cbt, 0, lengthBytes).buffer, {
      capacityBytes: GEOMETRY.capacityBytes,
      blockShift: 16,
      generation: new Uint8Array(16),
    });
    const request = {
      type: "attach" as const,
      tracker: 1,
      queue,
      originalFd: this.original,
      isBlock: false,
      geometry: GEOMETRY,
      cbt: { fd: cbt, lengthBytes },
      area: undefined,
    };
    this.device = new TrackedDevice(this.reactor, settings, request, ticker, notify);
  }

  take(): void {
    const mapBytes = DiffAreaMap.byteLength(GEOMETRY);
    prepareArea(this.device, {
      id: AREA,
      map: { fd: file("map", mapBytes), lengthBytes: mapBytes },
      storeCount: 1,
      storeFds: [file("store", MIB)],
      ...SLOTS,
      slotBytes: 2 ** GEOMETRY.chunkShift,
    });
    this.device.hold(10_000, () => undefined);
    this.device.switchAndRelease(AREA);
  }

  /** Runs turns of the reactor until the condition holds; each of them has to bring something. */
  until(isSo: () => boolean): void {
    while (!isSo()) {
      assert.not(this.#isOver, `not so within ${LIMIT_MS} ms`);
      this.reactor.turn();
    }
  }

  serve(
    fd: number,
    area: string | null,
    contexts: string[] = [],
    holes: KnownHoles | null = null,
  ): boolean {
    const told: boolean[] = [];
    const how = { structured: true, extended: false, readOnly: false, contexts };
    const given = { ...how, holes, received: new Uint8Array(0) };
    this.device.serveNbd(
      { type: "serveNbd", tracker: 1, area, params: PARAMS, fd, ...given },
      (isServed) => told.push(isServed),
    );
    this.until(() => told.length > 0);
    return told[0] === true;
  }

  ask(type: "dropArea" | "closeArea"): unknown[] {
    const answers: unknown[] = [];
    const request = { type, tracker: 1, area: AREA };
    carryOutArea(
      this.device,
      request,
      (answer) => answers.push(answer),
      () => true,
    );
    return answers;
  }

  close(): void {
    this.#port.port1.close();
  }
}

/** Both ends of a connection. Only received() reads. */
export class Pair {
  readonly serverFd: number;
  readonly #world: World;
  readonly #socket: Socket;
  readonly #fd: number;

  private constructor(world: World, serverFd: number, socket: Socket) {
    this.#world = world;
    this.serverFd = serverFd;
    this.#socket = socket;
    this.#fd = (socket as unknown as { _handle: { fd: number } })._handle.fd;
  }

  static async make(world: World): Promise<Pair> {
    const folder = mkdtempSync(join(tmpdir(), "nbd-"));
    const ring = new PromiseRing();
    try {
      const path = join(folder, "s");
      const listenFd = listenLocal(path, 0o600);
      const socket = connect(path);
      socket.pause();
      await new Promise((done) => socket.once("connect", done));
      const fd = await ring.submit((on, low, high) => prepareAccept(on, listenFd, low, high));
      closeSync(listenFd);
      return new Pair(world, fd, socket);
    } finally {
      ring.close();
      rmSync(folder, { recursive: true });
    }
  }

  send(type: number, offset: number, length: number, payload: Buffer = Buffer.alloc(0)): void {
    const request = Buffer.alloc(28);
    request.writeUInt32BE(0x25609513);
    request.writeUInt16BE(type, 6);
    request.writeBigUInt64BE(1n, 8);
    request.writeUInt32BE(offset, 20);
    request.writeUInt32BE(length, 24);
    writeSync(this.#fd, Buffer.concat([request, payload]));
  }

  /** So many bytes, or all until the end. */
  received(bytes: number): Buffer {
    const all = Buffer.alloc(bytes);
    let have = 0;
    let isOver = false;
    this.#world.until(() => {
      try {
        const count = readSync(this.#fd, all, have, bytes - have, null);
        have += count;
        isOver = count === 0;
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== EAGAIN) throw error;
      }
      return isOver || have === bytes;
    });
    return all.subarray(0, have);
  }

  close(): void {
    this.#socket.destroy();
  }
}
