/**
 * One reactor: carries out requests of the main thread for the devices that it owns. worker.ts runs it on a thread of
 * its own.
 */
import type { MessagePort } from "node:worker_threads";
import { assert, becomeIoFlusher, Reactor } from "@blksnap/uring";
import type { AreaId } from "./area-id.js";
import { carryOutArea } from "./area-requests.js";
import { carriedError } from "./carried-error.js";
import { acquireClaim, type Claim, isAbandoned } from "./claim.js";
import { queueUnits } from "./device-queue.js";
import { errorText } from "./error-text.js";
import { IoTicker } from "./io-ticker.js";
import { carryOutJournal } from "./journal-requests.js";
import type {
  AttachRequest,
  FromReactor,
  MarkDirtyRequest,
  PrepareAreaRequest,
  ReactorRequest,
  ReactorSettings,
  ServeNbdReply,
  ServeNbdRequest,
  ToReactor,
  WarmUpMessage,
} from "./messages.js";
import type { NewMap } from "./new-map.js";
import { QueueMemory } from "./queue-memory.js";
import { Slices } from "./slices.js";
import { carryOutTake, type TakenDevices } from "./take-requests.js";
import { TrackedDevice } from "./tracked-device.js";
import { REACTOR_TURN_UNITS } from "./turns.js";
import type { RunningWarmUp, StartWarmUp } from "./warm-up.js";

/** What a reactor's server needs. */
export interface ReactorServerOptions {
  /** See ReactorOptions. */
  readonly wakeFd: number;
  /** Where requests arrive: messages of type ToReactor. */
  readonly port: MessagePort;
  readonly say: (message: FromReactor) => void;
  readonly settings: ReactorSettings;
  /** As ReactorOptions has it. */
  readonly isLively?: boolean;
  /** Starts what a WarmUpMessage asks for; without it such messages are ignored. */
  readonly startWarmUp?: StartWarmUp | undefined;
}

/** All requests except those that keep their descriptors while memory is populated in slices. */
type OtherRequest = Exclude<ReactorRequest, PrepareAreaRequest>;

/** Must be made on the reactor's own thread. It serves as long as its reactor runs. */
export class ReactorServer {
  readonly #options: ReactorServerOptions;
  readonly #devices = new Map<number, TrackedDevice>();
  readonly #reactor: Reactor;
  readonly #ticker: IoTicker;
  /** Work before a device or an area exists. */
  readonly #slices: Slices;
  /** Maps of areas that do not exist yet. */
  readonly #newMaps = new Map<AreaId, NewMap>();
  readonly #taken: TakenDevices = {
    deviceOf: (tracker) => this.#deviceOf(tracker),
    find: (tracker) => this.#devices.get(tracker),
  };
  #warmUp: RunningWarmUp | undefined;

  constructor(options: ReactorServerOptions) {
    const { wakeFd, port, settings, isLively = false } = options;
    this.#options = options;
    const flusherProblem = becomeIoFlusher();
    if (flusherProblem !== undefined && settings.isFlusherOptional !== true)
      options.say({ notice: "error", message: flusherProblem });
    this.#reactor = new Reactor({
      wakeFd,
      port,
      onMessage: (message) => this.#onMessage(message as ToReactor),
      onError: (error) => this.#reportError(error),
      heartbeat: new Int32Array(settings.heartbeat),
      entries: settings.ringEntries,
      isLively,
    });
    this.#ticker = new IoTicker(this.#reactor, settings.ioTimeoutMs);
    this.#slices = new Slices(this.#reactor);
    options.say({ notice: "ready" });
  }

  /** Serves until it is stopped. @throws as Reactor.run() */
  run(): void {
    this.#reactor.run();
  }

  /** One turn of run(). @returns, @throws as Reactor.turn() */
  turn(): boolean {
    return this.#reactor.turn();
  }

  #reportError(error: unknown): void {
    this.#options.say({ notice: "error", message: errorText(error) });
  }

  #deviceOf(tracker: number): TrackedDevice {
    const device = this.#devices.get(tracker);
    if (device === undefined)
      throw new Error(`reactor ${this.#options.settings.index} has no tracker ${tracker}`);
    return device;
  }

  /** In slices, because the range may be the whole device. */
  #markDirty({ tracker, ranges }: MarkDirtyRequest, done: () => void): void {
    const { engine, slices } = this.#deviceOf(tracker);
    const { cbtBlockBytes } = engine;
    const bytesMax = REACTOR_TURN_UNITS * cbtBlockBytes;
    let range = 0;
    let doneBytes = 0;
    slices.run(() => {
      for (let units = 0; range < ranges.length && units < REACTOR_TURN_UNITS; units++) {
        const lengthBytes = Math.min(ranges[range + 1] - doneBytes, bytesMax);
        engine.markDirty(ranges[range] + doneBytes, lengthBytes);
        units += lengthBytes / cbtBlockBytes;
        doneBytes += lengthBytes;
        if (doneBytes < ranges[range + 1]) continue;
        range += 2;
        doneBytes = 0;
      }
      if (range < ranges.length) return true;
      done();
      return false;
    });
  }

  #attach(request: AttachRequest, memory: QueueMemory | undefined): void {
    const { tracker } = request;
    const { settings, say } = this.#options;
    const device = this.#reactor.attempt(
      () => new TrackedDevice(this.#reactor, settings, request, this.#ticker, say, memory),
    );
    this.#devices.set(tracker, device);
    try {
      device.start();
    } catch (error) {
      // If the kernel has commands of its queue, the queue ends with its device.
      device.awaitFrontEnd(() => this.#removeDevice(tracker));
      throw error;
    }
  }

  /** Called for each caller that has waited for the device's end; a caller whose first wait timed out waits again. */
  #removeDevice(tracker: number): void {
    this.#devices.get(tracker)?.close();
    this.#devices.delete(tracker);
  }

  /** May be called after the device is gone, if a caller waits again after a time-out. */
  #awaitFrontEnd(tracker: number, done: () => void): void {
    const device = this.#devices.get(tracker);
    const onEnd = (): void => {
      this.#removeDevice(tracker);
      done();
    };
    if (device === undefined) done();
    else device.awaitFrontEnd(onEnd);
  }

  /** May be called after the device is gone. */
  #serveNbd(request: ServeNbdRequest, done: (reply: ServeNbdReply) => void): void {
    const device = this.#devices.get(request.tracker);
    if (device === undefined) done({ isServed: false });
    else device.serveNbd(request, (isServed) => done({ isServed }));
  }

  /**
   * Carries a request out; `done` may be called later.
   * @param acquire whether the request's descriptors may be used
   * @param memory for the buffers of the queue that it serves
   */
  #carryOut(
    request: OtherRequest,
    done: (value?: unknown) => void,
    acquire: () => boolean,
    memory: QueueMemory | undefined,
  ): void {
    switch (request.type) {
      case "attach":
        if (!acquire()) return;
        this.#attach(request, memory);
        done();
        return;
      case "wakeArea":
        if (!acquire()) return;
        done(this.#deviceOf(request.tracker).wakeArea(request.area));
        return;
      case "hold":
      case "switch":
      case "release":
        carryOutTake(this.#taken, request, done);
        return;
      case "awaitFrontEnd":
        this.#awaitFrontEnd(request.tracker, done);
        return;
      case "markDirty":
        this.#markDirty(request, done);
        return;
      case "grow":
        this.#deviceOf(request.tracker).grow(request, acquire, done);
        return;
      case "counters":
        // The device may be gone.
        done(this.#devices.get(request.tracker)?.counters() ?? null);
        return;
      case "mirrorJournal":
      case "adoptJournal":
      case "dropJournal":
      case "commitJournal":
        carryOutJournal(this.#deviceOf(request.tracker), request, done, acquire);
        return;
      case "lostRanges":
      case "giveBackSlots":
        if (!this.#devices.has(request.tracker)) done(null);
        else carryOutArea(this.#deviceOf(request.tracker), request, done, acquire);
        return;
      case "openImage":
      case "awaitImageEnd":
      case "dropArea":
      case "closeArea":
      case "loseSlots":
      case "dropAreaJournal":
      case "growAreaJournal":
      case "compactAreaJournal":
      case "adoptAreaJournal":
      case "abandonAreaJournal":
        carryOutArea(this.#deviceOf(request.tracker), request, done, acquire, memory);
        return;
      case "serveNbd":
        if (acquire()) this.#serveNbd(request, done);
        return;
      case "countConnections":
        done(this.#devices.get(request.tracker)?.connections(request.area) ?? 0);
        return;
      case "stop":
        assert(this.#devices.size === 0, "a reactor with devices was asked to stop");
        this.#warmUp?.end();
        this.#reactor.stop();
    }
  }

  #onMessage(received: ToReactor): void {
    if ("type" in received) {
      if (received.type === "warmUp") this.#startWarmUp(received);
      else this.#devices.get(received.tracker)?.areaOf(received.area)?.grant(received);
      return;
    }
    const { id, request, claim } = received;
    if (request.type === "prepareArea") {
      this.#prepareArea(id, request, claim);
      return;
    }
    if (request.type === "dropArea") this.#newMaps.get(request.area)?.giveUp();
    if (request.type !== "attach" && request.type !== "openImage") {
      this.#begin(id, request, claim);
      return;
    }
    // Before the request's descriptors are used: until then it can be withdrawn.
    const units = queueUnits(request.queue);
    if (units === undefined) {
      this.#begin(id, request, claim);
      return;
    }
    this.#attempt(id, () => {
      const memory = new QueueMemory(this.#reactor, units);
      memory.populate(this.#slices, () => {
        this.#begin(id, request, claim, memory);
        memory.discard();
      });
    });
  }

  #startWarmUp({ zeroCopy }: WarmUpMessage): void {
    const { settings, startWarmUp, say } = this.#options;
    const onEnd = (failure: unknown): void => {
      this.#warmUp = undefined;
      if (failure === undefined) return;
      const message = `the warm-up failed, and first requests take longer: ${errorText(failure)}`;
      say({ notice: "error", message });
    };
    try {
      this.#warmUp = startWarmUp?.(this.#reactor, settings, zeroCopy, onEnd);
    } catch (error) {
      onEnd(error);
    }
  }

  /**
   * The main thread keeps the descriptors open until it has the answer or gives up waiting. In that case it closes some
   * of them at once, and drops the area later.
   */
  #prepareArea(id: number, { tracker, area }: PrepareAreaRequest, claim?: Claim): void {
    if (claim !== undefined && !acquireClaim(claim)) return;
    this.#attempt(id, () => {
      const map = this.#deviceOf(tracker).newMap(area);
      this.#newMaps.set(area.id, map);
      const step = (): boolean => {
        if (claim !== undefined && isAbandoned(claim))
          throw new Error("its caller no longer waits");
        if (map.populateSlice()) return true;
        this.#deviceOf(tracker).prepareArea(area, map);
        this.#options.say({ re: id });
        return false;
      };
      this.#slices.run(() => {
        let isMore = false;
        this.#attempt(id, () => {
          isMore = step();
        });
        if (isMore) return true;
        map.giveUp();
        this.#newMaps.delete(area.id);
        return false;
      });
    });
  }

  #begin(id: number, request: OtherRequest, claim?: Claim, memory?: QueueMemory): void {
    const acquire = (): boolean => claim === undefined || acquireClaim(claim);
    const done = (value?: unknown): void => this.#options.say({ re: id, value });
    this.#attempt(id, () => this.#carryOut(request, done, acquire, memory));
  }

  /** An exception becomes the answer. */
  #attempt(id: number, work: () => void): void {
    try {
      work();
    } catch (error) {
      this.#options.say({ re: id, error: carriedError(error) });
      this.#reportError(error);
    }
  }
}
