/** Stands in for the reactor of a queue: keeps the SQEs instead of submitting them. */
import { closeSync, ftruncateSync, readFileSync } from "node:fs";
import {
  type CompletionHandler,
  createMemoryFile,
  MappedMemory,
  type Reactor,
} from "@blksnap/uring";

const SQE_WORDS = 16;
const QUEUE_SPAN_BYTES = 98_304;

/** A command as the kernel would see it. */
export interface SentCommand {
  readonly op: number;
  readonly queueId: number;
  readonly tag: number;
  readonly result: number;
  readonly addressLow: number;
  /** Of the entry itself. */
  readonly entryAddressLow: number;
  readonly opcode: number;
  readonly offset: bigint;
  readonly lengthBytes: number;
  readonly userLow: number;
  readonly userHigh: number;
}

/** Mappings of descriptors that this process has, its own and those of queues. */
export function mappings(): number {
  return readFileSync("/proc/self/maps", "utf8").match(/memfd:ublkc/g)?.length ?? 0;
}

/** Whether CAP_SYS_ADMIN is effective for this thread. */
function isAdministrator(): boolean {
  const status = readFileSync("/proc/thread-self/status", "utf8");
  const [, set = ""] = /^CapEff:\s*([0-9a-f]+)/m.exec(status) ?? [];
  return ((BigInt(`0x${set}`) >> 21n) & 1n) === 1n;
}

export class FakeReactor {
  readonly ring = {
    sqes32: new Int32Array(SQE_WORDS * 1024),
    sqeWords: SQE_WORDS,
    sqEntries: 256,
    nextSqe: (): number => this.#used++ * SQE_WORDS,
    reserve: (count: number): void => void this.calls.push(`reserve ${count}`),
    submit: (): void => {
      const who = isAdministrator() ? "administrator" : "anybody";
      this.calls.push(`submit as ${who} with ${mappings()} mappings`);
    },
  };
  /** What was asked of the ring besides entries. */
  readonly calls: string[] = [];
  readonly handlers: (CompletionHandler | undefined)[] = [];
  readonly buffers = new Set<number>();
  readonly timers: (() => void)[] = [];
  isRequestExpected = false;
  /** In the table of registered buffers, that a queue has. */
  places = 0;
  #used = 0;
  #taken = 0;

  addHandler(handler: CompletionHandler): number {
    return this.handlers.push(handler) - 1;
  }

  removeHandler(id: number): void {
    this.handlers[id] = undefined;
  }

  addBuffer(): number {
    this.buffers.add(5);
    return 5;
  }

  removeBuffer(index: number): void {
    this.buffers.delete(index);
  }

  noteTaken(): void {}

  expectRequest(isSoon: boolean): void {
    this.isRequestExpected = isSoon;
  }

  unmapInSlices(memory: MappedMemory): void {
    memory.unmap();
  }

  setTimer(_delayMs: number, callback: () => void): object {
    this.timers.push(callback);
    return callback;
  }

  /** Fewer than a queue of four tags would like. */
  takeBufferPlaces(): Int32Array {
    this.places += 3;
    return Int32Array.of(70, 71, 72);
  }

  giveBackBufferPlaces(places: Int32Array): void {
    this.places -= places.length;
  }

  /** The commands since the last call. */
  takeCommands(): SentCommand[] {
    const commands: SentCommand[] = [];
    for (; this.#taken < this.#used; this.#taken++) {
      const words = this.ring.sqes32.subarray(this.#taken * SQE_WORDS);
      commands.push({
        op: words[2] >>> 0,
        queueId: words[12] & 0xffff,
        tag: words[12] >>> 16,
        result: words[13],
        addressLow: words[14],
        entryAddressLow: words[4],
        opcode: words[0] & 0xff,
        offset: (BigInt(words[3]) << 32n) + BigInt(words[2] >>> 0),
        lengthBytes: words[6],
        userLow: words[8],
        userHigh: words[9],
      });
    }
    return commands;
  }

  asReactor(): Reactor {
    return this as unknown as Reactor;
  }
}

/** Stands in for /dev/ublkcN: descriptors that the test writes and the queue reads. */
export class FakeCharacterDevice {
  readonly fd: number;
  readonly #memory: MappedMemory;

  constructor() {
    this.fd = createMemoryFile("ublkc");
    ftruncateSync(this.fd, 4 * QUEUE_SPAN_BYTES);
    this.#memory = MappedMemory.file(this.fd, 0, 4 * QUEUE_SPAN_BYTES);
  }

  /** Writes the descriptor of a request. */
  describe(queueId: number, tag: number, opFlags: number, sectors: number, start: bigint): void {
    const view = new DataView(this.#memory.buffer, queueId * QUEUE_SPAN_BYTES + tag * 24, 24);
    view.setUint32(0, opFlags, true);
    view.setUint32(4, sectors, true);
    view.setBigUint64(8, start, true);
  }

  close(): void {
    this.#memory.unmap();
    closeSync(this.fd);
  }
}
