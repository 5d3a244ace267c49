/**
 * The NBD connections of one device or image, served in its reactor. It takes memory with the first connection, and
 * keeps it until the front or image ends.
 *
 * ```
 *   closed ── serve ──▶ opening ── memory is there ──▶ open ── serve ──▶ …
 *                          └──────────── end ───────────┴─▶ ending ── nothing in flight ──▶ ended
 * ```
 */
import { type Adoption, ReactorServer, serverMemory } from "@blksnap/nbd";
import type { DeviceParams, RequestQueue, Target } from "@blksnap/ublk";
import type { Reactor } from "@blksnap/uring";
import { QueueMemory } from "./queue-memory.js";
import type { Slices } from "./slices.js";

/** Requests in flight of one device, over all its connections. */
export const NBD_DEPTH = 32;
/** Connections to a front or an image at a time. */
export const CONNECTIONS_MAX = 16;
/** Most bytes per request: more would only take more memory. */
export const NBD_IO_BYTES_MAX: number = 256 * 1024;
/**
 * Most open doors of a reactor: room in its tables (handlers, registered files and buffers) belongs to devices first.
 */
export const DOORS_MAX = 64;
const openDoors = new WeakMap<Reactor, number>();

/** A server has one export: the main thread knows which one a client wants before it passes the connection on. */
export const EXPORT_NAME = "";

export interface NbdDoorOptions {
  readonly reactor: Reactor;
  readonly slices: Slices;
  /** The most that the device accepts per request. */
  readonly maxIoBytes: number;
  readonly openTarget: (queue: RequestQueue) => Target;
  readonly onError: (error: unknown) => void;
}

export interface NbdConnection extends Omit<Adoption, "exportName"> {
  /** The socket, which belongs to the door once it is served. */
  readonly fd: number;
}

type Served = (isServed: boolean) => void;

export class NbdDoor {
  readonly #options: NbdDoorOptions;
  #state: "closed" | "opening" | "open" | "ending" | "ended" = "closed";
  #server: ReactorServer | undefined;
  /** Called when there is memory, or will be none. */
  #waiting: (() => void)[] = [];
  #onEnded: (() => void)[] = [];

  constructor(options: NbdDoorOptions) {
    this.#options = options;
  }

  /** Nothing is in flight, and never will be. */
  get isEnded(): boolean {
    return this.#state === "ended";
  }

  /**
   * Serves a connection. If `done` receives false, the descriptor remains the caller's.
   * @param params of the export, read-only; with discards, clients may trim what they have read
   */
  serve(params: DeviceParams, connection: NbdConnection, done: Served): void {
    const adopt = (): void => {
      const adoption = { ...connection, exportName: EXPORT_NAME };
      const isOpen = this.#state === "open";
      done(isOpen && this.#server?.adopt(connection.fd, adoption) === true);
    };
    if (this.#state === "opening") this.#waiting.push(adopt);
    else if (this.#state === "closed") {
      this.#waiting.push(adopt);
      this.#open(params);
    } else adopt();
  }

  /** Ends all connections, and calls back when nothing of them is in flight. */
  end(onEnd: () => void): void {
    if (this.#state === "ended") {
      onEnd();
      return;
    }
    this.#onEnded.push(onEnd);
    const state = this.#state;
    if (state === "ending") return;
    this.#state = "ending";
    if (state === "closed") this.#ended();
    else if (state === "open") this.#server?.stop(() => this.#ended());
  }

  #count(change: number): void {
    const { reactor } = this.#options;
    openDoors.set(reactor, (openDoors.get(reactor) ?? 0) + change);
  }

  #ended(): void {
    this.#state = "ended";
    this.#forgetServer();
    for (const notify of this.#onEnded.splice(0)) notify();
  }

  #forgetServer(): void {
    if (this.#server !== undefined) this.#count(-1);
    this.#server = undefined;
  }

  #open(params: DeviceParams): void {
    const { reactor, slices, onError } = this.#options;
    const maxIoBytes = Math.min(this.#options.maxIoBytes, NBD_IO_BYTES_MAX);
    const settings = { connectionsMax: CONNECTIONS_MAX, queueDepth: NBD_DEPTH, maxIoBytes };
    this.#state = "opening";
    if ((openDoors.get(reactor) ?? 0) >= DOORS_MAX) {
      this.#opened(false);
      return;
    }
    let memory: QueueMemory;
    try {
      memory = new QueueMemory(reactor, serverMemory(settings));
    } catch (error) {
      onError(error);
      this.#opened(false);
      return;
    }
    memory.populate(slices, () => {
      if (this.#state === "opening") {
        try {
          const taken = memory.handOver();
          this.#server = reactor.attempt(
            () => new ReactorServer({ reactor, settings, memory: taken, onError }),
          );
          this.#count(1);
          this.#addExport(this.#server, params);
          this.#opened(true);
          return;
        } catch (error) {
          onError(error);
          if (this.#server === undefined) memory.giveBack();
        }
      } else memory.discard();
      this.#opened(false);
    });
  }

  #addExport(server: ReactorServer, params: DeviceParams): void {
    const target = this.#options.openTarget(server.queue);
    const releases = params.discardMaxBytes > 0;
    server.add({ name: EXPORT_NAME, readOnly: true, releases }, params, target);
  }

  /** Answers waiting connections, whether or not there is a server. */
  #opened(isGood: boolean): void {
    const isEnding = this.#state === "ending";
    if (!isEnding) this.#state = isGood ? "open" : "closed";
    for (const adopt of this.#waiting.splice(0)) adopt();
    const server = this.#server;
    if (isGood) return;
    this.#forgetServer();
    const done = (): void => {
      if (isEnding) this.#ended();
    };
    // A server whose target could not be opened has nothing in flight.
    if (server === undefined) done();
    else server.stop(done);
  }
}
