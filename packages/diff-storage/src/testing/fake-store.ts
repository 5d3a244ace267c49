import { constants } from "node:os";
import type { DeviceNumber } from "@blksnap/linux-block";
import type { Store, StorePresence } from "../store.js";
import type { StoreKind } from "../store-kinds.js";
import { isDevice } from "../store-kinds.js";
import type { Clock } from "../system.js";

/** The outcome of a fake store's preallocation or punch. */
export interface FakeOutcome {
  /** Duration; Infinity never ends. */
  readonly delayMs: number;
  /** Name of the errno of a failure; undefined for success. */
  readonly errnoName?: string;
}

/** Options of a fake store. */
export interface FakeStoreOptions {
  readonly clock: Clock;
  readonly kind?: StoreKind;
  readonly path?: string;
  readonly openedBytes?: number;
  /** How many of the opened bytes have space, from the start. Default 0. */
  readonly openedBackedBytes?: number;
  readonly limitBytes?: number;
  /** Capacity of its disk in bytes; beyond that, ENOSPC. Default: unlimited. */
  readonly diskBytes?: number;
  /** Called for each preallocation. Default: succeeds at once. */
  readonly onPreallocate?: (offsetBytes: number, lengthBytes: number) => FakeOutcome;
  /** Called for each punch. Default: succeeds at once. */
  readonly onPunch?: (offsetBytes: number, lengthBytes: number) => FakeOutcome;
  /** Default: false. */
  readonly isInMemory?: boolean;
  /** The present size, which others may change. Default: they cannot. */
  readonly presentBytes?: () => number;
  /** The present space. Default: the file system does not count it. */
  readonly presentSpaceBytes?: () => number;
}

const AT_ONCE: FakeOutcome = { delayMs: 0 };

/** A store without a file: it knows which units have space, and behaves as configured. */
export class FakeStore implements Store {
  readonly kind: StoreKind;
  readonly path: string;
  readonly fd: number = -1;
  readonly directIo: boolean = false;
  readonly alignmentBytes: number = 1;
  readonly device: DeviceNumber = { major: 0, minor: 0 };
  readonly identity: string = "file:0:0";
  readonly openedBytes: number;
  readonly limitBytes: number;
  readonly growable: boolean;
  readonly punchable: boolean;
  closed = false;
  #options: FakeStoreOptions;
  #backed = new Set<number>();

  constructor(options: FakeStoreOptions) {
    this.#options = options;
    this.kind = options.kind ?? "file";
    this.path = options.path ?? `/fake/${this.kind}`;
    this.openedBytes = options.openedBytes ?? 0;
    for (const unit of units(0, options.openedBackedBytes ?? 0)) this.#backed.add(unit);
    this.limitBytes = options.limitBytes ?? Number.POSITIVE_INFINITY;
    this.growable = !isDevice(this.kind);
    this.punchable = !isDevice(this.kind);
  }

  /** Bytes with space. */
  get backedBytes(): number {
    return this.#backed.size * UNIT_BYTES;
  }

  /** End of the last unit with space. */
  get backedEndBytes(): number {
    return this.#backed.size === 0 ? 0 : (Math.max(...this.#backed) + 1) * UNIT_BYTES;
  }

  /** Whether all of a range has space. */
  isBacked(offsetBytes: number, lengthBytes: number): boolean {
    if (isDevice(this.kind)) return offsetBytes + lengthBytes <= this.openedBytes;
    return units(offsetBytes, lengthBytes).every((unit) => this.#backed.has(unit));
  }

  async allowAlignment(): Promise<void> {}

  async isInMemory(): Promise<boolean> {
    return this.#options.isInMemory ?? false;
  }

  async preallocate(offsetBytes: number, lengthBytes: number): Promise<void> {
    if (isDevice(this.kind)) return;
    await this.#outcome((this.#options.onPreallocate ?? (() => AT_ONCE))(offsetBytes, lengthBytes));
    const missing = units(offsetBytes, lengthBytes).filter((unit) => !this.#backed.has(unit));
    const diskBytes = this.#options.diskBytes ?? Number.POSITIVE_INFINITY;
    if (this.backedBytes + missing.length * UNIT_BYTES > diskBytes) throw failure("ENOSPC");
    for (const unit of missing) this.#backed.add(unit);
  }

  async presence(): Promise<StorePresence | undefined> {
    const { presentBytes, presentSpaceBytes } = this.#options;
    if (presentBytes === undefined) return undefined;
    return { sizeBytes: presentBytes(), allocatedBytes: presentSpaceBytes?.() };
  }

  async trim(endBytes: number): Promise<void> {
    const end = Math.max(endBytes, this.openedBytes) / UNIT_BYTES;
    for (const unit of this.#backed) if (unit >= end) this.#backed.delete(unit);
  }

  async punch(offsetBytes: number, lengthBytes: number): Promise<void> {
    await this.#outcome((this.#options.onPunch ?? (() => AT_ONCE))(offsetBytes, lengthBytes));
    for (const unit of units(offsetBytes, lengthBytes)) this.#backed.delete(unit);
  }

  async availableBytes(): Promise<number | undefined> {
    if (this.#options.diskBytes === undefined) return undefined;
    return Math.max(0, this.#options.diskBytes - this.backedBytes);
  }

  async close(): Promise<void> {
    this.closed = true;
  }

  async #outcome(outcome: FakeOutcome): Promise<void> {
    if (outcome.delayMs === Number.POSITIVE_INFINITY) await new Promise(() => undefined);
    if (outcome.delayMs > 0) {
      await new Promise<void>((done) => {
        this.#options.clock.after(outcome.delayMs, done);
      });
    }
    if (outcome.errnoName !== undefined) throw failure(outcome.errnoName);
  }
}

/** Smallest unit of space of a fake store; slots of tests are multiples of it. */
const UNIT_BYTES = 4096;

function units(offsetBytes: number, lengthBytes: number): number[] {
  const first = Math.floor(offsetBytes / UNIT_BYTES);
  const end = Math.ceil((offsetBytes + lengthBytes) / UNIT_BYTES);
  return Array.from({ length: end - first }, (_, index) => first + index);
}

function failure(errnoName: string): Error {
  const errno = -((constants.errno as Record<string, number>)[errnoName] ?? constants.errno.EIO);
  return Object.assign(new Error(`fake failure ${errnoName}`), { code: errnoName, errno });
}
