/**
 * The ublk driver for a reactor on a real ring: commands of queues become NOPs that bring the next request, or wait
 * for one here. Pages of a request with zero copy are some of this process, in the place that its tag has named; their
 * first byte is at offset 0 for the reactor, as the kernel has it. All else that the reactor asks for is done by the kernel, and counted.
 */
import { ftruncateSync } from "node:fs";
import {
  createMemoryFile,
  high32,
  low32,
  MappedMemory,
  prepareNop,
  type Reactor,
} from "@blksnap/uring";
import { native } from "../../uring/dist/native.js";

const URING_CMD = 46;
/** Reads and writes of memory that the ring does not know. */
const READ = 22;
const WRITE = 23;
const READ_FIXED = 4;
const WRITE_FIXED = 5;
const ADDRESS_WORD = 4;
const BUFFER_WORD = 10;
const COMMAND_WORD = 12;
const USER_DATA_WORD = 8;
const DESCRIPTOR_WORDS = 6;
const SECTOR_BYTES = 512;
const FILE_BYTES = 2 ** 20;
/** Nobody waits for the completion of a command that is kept here. */
const KEPT_DATA = 0;

export interface UserRequest {
  readonly op: number;
  readonly offsetBytes: number;
  readonly lengthBytes: number;
}

/** A device with one queue of one tag. */
interface FakeDevice {
  readonly descriptors: Int32Array;
  readonly waiting: UserRequest[];
  readonly results: number[];
  /** The first command of its tag has come: the others bring results. */
  isFetched: boolean;
  /** User data of the command that waits for a request. */
  kept: readonly [number, number] | undefined;
}

/** What the reactor has asked of the kernel. */
export interface Work {
  enters: number;
  entries: number;
  /** Entries for which the kernel has to look up and pin the pages of their memory. */
  lookups: number;
}

export class FakeUblk {
  readonly #reactor: Reactor;
  readonly #devices = new Map<number, FakeDevice>();
  readonly #enter = native.enter;
  readonly #keptHandler: number;
  /** By the place in the table of registered buffers. */
  readonly #pages = new Map<number, MappedMemory>();
  readonly #work: Work = { enters: 0, entries: 0, lookups: 0 };

  constructor(reactor: Reactor) {
    this.#reactor = reactor;
    this.#keptHandler = reactor.addHandler({ onCompletion: () => undefined });
    native.enter = (fd, toSubmit, minComplete, flags) => {
      this.#takeCommands();
      this.#placePages();
      this.#work.enters++;
      this.#work.entries += toSubmit;
      this.#work.lookups += this.#countLookups();
      const status = this.#enter(fd, toSubmit, minComplete, flags);
      if (status === toSubmit) this.#forgetEntries();
      return status;
    };
  }

  /** A character device with one tag, for makeQueue(). */
  addDevice(): number {
    const fd = createMemoryFile("ublkc");
    ftruncateSync(fd, FILE_BYTES);
    const { buffer } = MappedMemory.file(fd, 0, FILE_BYTES);
    const descriptors = new Int32Array(buffer);
    const device = { descriptors, waiting: [], results: [], isFetched: false, kept: undefined };
    this.#devices.set(fd, device);
    return fd;
  }

  /** Has users send these, one after the other. Answers what the reactor did for them, and the results. */
  run(charFd: number, requests: readonly UserRequest[]): Work & { results: number[] } {
    const device = this.#deviceOf(charFd);
    while (device.kept === undefined) this.#reactor.turn();
    const [low, high] = device.kept;
    const { enters, entries, lookups } = this.#work;
    device.results.length = 0;
    device.waiting.push(...requests);
    this.#deliver(device);
    prepareNop(this.#reactor.ring, low, high, 0);
    while (device.results.length < requests.length) this.#reactor.turn();
    const work = this.#work;
    return {
      enters: work.enters - enters,
      entries: work.entries - entries,
      lookups: work.lookups - lookups,
      results: [...device.results],
    };
  }

  close(): void {
    native.enter = this.#enter;
  }

  #deviceOf(charFd: number): FakeDevice {
    const device = this.#devices.get(charFd);
    if (device === undefined) throw new Error("a command of no device");
    return device;
  }

  #countLookups(): number {
    const { sqes32: words, sqEntries, sqeWords } = this.#reactor.ring;
    let lookups = 0;
    for (let sqe = 0; sqe < sqEntries * sqeWords; sqe += sqeWords) {
      const opcode = words[sqe] & 0xff;
      if (opcode === READ || opcode === WRITE) lookups++;
    }
    return lookups;
  }

  /** The kernel has read them: none is counted again. */
  #forgetEntries(): void {
    const { sqes32: words, sqEntries, sqeWords } = this.#reactor.ring;
    for (let sqe = 0; sqe < sqEntries * sqeWords; sqe += sqeWords) words[sqe] = 0;
  }

  /** What is new in the ring: an entry is written whole each time that it is used. */
  #takeCommands(): void {
    const { sqes32: words, sqEntries, sqeWords } = this.#reactor.ring;
    for (let sqe = 0; sqe < sqEntries * sqeWords; sqe += sqeWords) {
      if ((words[sqe] & 0xff) === URING_CMD) this.#takeCommand(words, sqe, sqeWords);
    }
  }

  /** The kernel has offsets in pages, this process their addresses. */
  #placePages(): void {
    const { sqes32: words, sqEntries, sqeWords } = this.#reactor.ring;
    for (let sqe = 0; sqe < sqEntries * sqeWords; sqe += sqeWords) {
      const opcode = words[sqe] & 0xff;
      const at = sqe + ADDRESS_WORD;
      const isOffset = words[at] === 0 && words[at + 1] === 0;
      if ((opcode !== READ_FIXED && opcode !== WRITE_FIXED) || !isOffset) continue;
      const { address = 0 } = this.#pages.get(words[sqe + BUFFER_WORD]) ?? {};
      words[at] = low32(address);
      words[at + 1] = high32(address);
    }
  }

  #registerPages(place: number): void {
    const memory = MappedMemory.anonymous(FILE_BYTES);
    memory.populate(0, FILE_BYTES);
    this.#reactor.ring.setBuffer(place, memory.address, memory.lengthBytes);
    this.#pages.set(place, memory);
  }

  #takeCommand(words: Int32Array, sqe: number, sqeWords: number): void {
    const registration = words[sqe + ADDRESS_WORD];
    const place = registration & 0xffff;
    if (registration !== 0 && !this.#pages.has(place)) this.#registerPages(place);
    const device = this.#deviceOf(words[sqe + 1]);
    const result = words[sqe + COMMAND_WORD + 1];
    const user = [words[sqe + USER_DATA_WORD], words[sqe + USER_DATA_WORD + 1]] as const;
    if (device.isFetched) device.results.push(result);
    device.isFetched = true;
    const isKept = device.waiting.length === 0;
    if (isKept) device.kept = user;
    else this.#deliver(device);
    words.fill(0, sqe, sqe + sqeWords);
    words[sqe + 1] = -1;
    words[sqe + USER_DATA_WORD] = isKept ? KEPT_DATA : user[0];
    words[sqe + USER_DATA_WORD + 1] = isKept ? this.#keptHandler : user[1];
  }

  #deliver(device: FakeDevice): void {
    const request = device.waiting.shift();
    if (request === undefined) throw new Error("there is no request");
    const { op, offsetBytes, lengthBytes } = request;
    const firstSector = offsetBytes / SECTOR_BYTES;
    device.kept = undefined;
    device.descriptors.set([op, lengthBytes / SECTOR_BYTES, firstSector, 0], 0);
    device.descriptors.fill(0, 4, DESCRIPTOR_WORDS);
  }
}
