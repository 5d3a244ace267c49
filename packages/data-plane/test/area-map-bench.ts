/** A map file on a reactor of its own, whose ring answers as a test says. */
import { closeSync, fstatSync, ftruncateSync, writeSync } from "node:fs";
import { MessageChannel } from "node:worker_threads";
import { type CopyPlaces, DiffArea, DiffAreaMap, firstMapBytes, Geometry } from "@blksnap/engine";
import { createMemoryFile, Reactor } from "@blksnap/uring";
import { native } from "@blksnap/uring/testing";
import * as assert from "uvu/assert";
import { AreaMapFile } from "../dist/area-map-file.js";
import type { MapFileRef } from "../dist/messages.js";
import { NewMap } from "../dist/new-map.js";

export const GIB = 2 ** 30;
export const SECTOR = 512;
export const AREA = "12345678-1234-4321-8765-123456789abc";

export function geometryOf(capacityBytes: number): Geometry {
  return new Geometry({ capacityBytes, logicalBlockBytes: 512, chunkShift: 18, blockShift: 12 });
}

/** Populates the memory of a map at once. */
export function newMap(
  file: MapFileRef,
  geometry: Geometry,
  places: readonly CopyPlaces[] = [],
): NewMap {
  const map = new NewMap(file, geometry, places);
  while (map.populateSlice());
  return map;
}

export class Bench {
  readonly errors: unknown[] = [];
  readonly reactor: Reactor;
  readonly fd: number;
  readonly lengthBytes: number;
  readonly file: AreaMapFile;
  readonly area: DiffArea;
  readonly #port = new MessageChannel();
  /** Replace the first results of the ring. */
  readonly refusals: number[] = [];
  readonly timers: { readonly delayMs: number; callback: () => void }[] = [];
  answers = 0;

  constructor(capacityBytes: number, reactor?: Reactor) {
    const geometry = geometryOf(capacityBytes);
    this.reactor = reactor ?? this.#makeReactor();
    this.lengthBytes = DiffAreaMap.byteLength(geometry);
    this.fd = createMemoryFile("map");
    writeSync(this.fd, new Uint8Array(firstMapBytes(geometry)));
    ftruncateSync(this.fd, this.lengthBytes);
    this.file = AreaMapFile.create(this.reactor, newMap(this, geometry), AREA);
    this.area = new DiffArea(this.file.map);
    this.area.listener = {
      onSlotsAnswered: () => this.answers++,
      onTick: () => undefined,
    };
  }

  #makeReactor(): Reactor {
    const reactor = new Reactor({
      wakeFd: native.eventFd(0, 0o2000000),
      port: this.#port.port2,
      onMessage: () => undefined,
      onError: (error) => this.errors.push(error),
    });
    const addHandler = reactor.addHandler.bind(reactor);
    reactor.addHandler = (handler) =>
      addHandler({
        onCompletion: (data, result, flags) =>
          handler.onCompletion(data, this.refusals.shift() ?? result, flags),
      });
    reactor.setTimer = (delayMs, callback) => {
      const timer = { delayMs, callback };
      this.timers.push(timer);
      return timer;
    };
    reactor.cancelTimer = (timer) => {
      this.timers.splice(this.timers.indexOf(timer as never), 1);
    };
    return reactor;
  }

  /** Ends the pause that is waited for. */
  pass(): void {
    for (const { callback } of this.timers.splice(0)) callback();
  }

  get allocatedBytes(): number {
    return fstatSync(this.fd).blocks * SECTOR;
  }

  ask(slice: number): void {
    assert.ok(this.area.memory.mayAsk(slice));
    this.file.allocate(slice, this.area);
  }

  /** Serves until the area gets its next answer. */
  awaitAnswer(): void {
    const before = this.answers;
    while (this.answers === before) this.reactor.turn();
  }

  end(): void {
    this.reactor.stop();
    this.reactor.run();
    closeSync(this.fd);
    this.#port.port1.close();
    assert.equal(this.errors, []);
  }
}
