import { fileURLToPath } from "node:url";
import { loadAddon, programBeside } from "./addon-file.js";

/** A mapping of the addon: its address, and its handle for other calls. */
export interface NativeMapping {
  readonly address: number;
  readonly mapping: unknown;
}

/** Byte offsets of the rings' fields inside the mapped ring memory. */
export interface RingOffsets {
  readonly sqHead: number;
  readonly sqTail: number;
  readonly sqMask: number;
  readonly sqFlags: number;
  readonly sqDropped: number;
  /** Absent in a ring without one. */
  readonly sqArray?: number;
  readonly cqHead: number;
  readonly cqTail: number;
  readonly cqMask: number;
  readonly cqOverflow: number;
  readonly cqes: number;
}

export interface NativeRing {
  readonly fd: number;
  readonly features: number;
  readonly sqEntries: number;
  readonly cqEntries: number;
  readonly offsets: RingOffsets;
  readonly rings: ArrayBuffer;
  readonly sqes: ArrayBuffer;
  readonly handle: unknown;
}

export interface NativeWatcher {
  arm(): void;
  close(): void;
  ref(): void;
  unref(): void;
}

/** The addon. Calls return a value >= 0 or a negative errno. */
export interface UringNative {
  createRing(entries: number, cqEntries: number, flags: number): NativeRing | number;
  closeRing(handle: unknown, rings: ArrayBuffer, sqes: ArrayBuffer): void;
  enter(fd: number, toSubmit: number, minComplete: number, flags: number): number;
  registerFilesSparse(handle: unknown, count: number): number;
  updateFile(handle: unknown, index: number, fd: number): number;
  registerBuffersSparse(handle: unknown, count: number): number;
  updateBuffer(handle: unknown, index: number, address: number, lengthBytes: number): number;
  registerRingFd(handle: unknown): number;
  limitWorkers(handle: unknown, bounded: number): number;
  mapMemory(lengthBytes: number, flags: number): NativeMapping | number;
  mapFile(
    fd: number,
    offsetBytes: number,
    lengthBytes: number,
    protection: number,
    flags: number,
  ): NativeMapping | number;
  /** Once at most for each mapping. */
  bytesOf(mapping: unknown): ArrayBuffer;
  /** @param buffer returned by bytesOf(), if it was called */
  unmap(mapping: unknown, buffer: ArrayBuffer | undefined): number;
  advise(mapping: unknown, offsetBytes: number, lengthBytes: number, advice: number): number;
  ioctl(fd: number, request: number, argument: ArrayBufferView | number): number;
  ioctlAsync(fd: number, request: number, argument: ArrayBufferView | number): Promise<number>;
  lockFile(fd: number, type: number): number;
  lockFileAsync(fd: number, type: number): Promise<number>;
  lockWholeFile(fd: number): number;
  endDirectIo(fd: number): number;
  eventFd(initial: number, flags: number): number;
  memoryFile(name: string, flags: number): number;
  listenLocal(path: string, mode: number, backlog: number): number;
  duplicate(fd: number): number;
  socketPair(): [number, number] | number;
  setSocketOption(fd: number, level: number, option: number, value: number): number;
  prctl(option: number, argument: number): number;
  lockMemory(address: number, lengthBytes: number, flags: number): number;
  threadId(): number;
  endProcess(status: number): never;
  guardThread(status: number): number;
  releaseThread(status: number): number;
  replaceProcess(path: string, words: readonly string[], lastFd: number): number;
  setAffinity(cpu: number): number;
  /** Its first element becomes the microseconds of a monotonic clock: a returned number would be garbage. */
  readClock(us: Float64Array): number;
  sendNow(fd: number, bytes: Uint8Array): number;
  sendDatagram(path: string, text: string): number;
  setCapability(capability: number, effective: boolean): number;
  directIoAlignment(fd: number): [number, number] | number;
  Watcher: new (fd: number, callback: () => void) => NativeWatcher;
}

// By its name, because a bundler moves this module.
const packageDir = fileURLToPath(new URL(".", import.meta.resolve("@blksnap/uring/package.json")));
const addon = loadAddon(packageDir);

export const native: UringNative = addon.exports as UringNative;
/** The program for separate calls is beside the addon. */
export const apartProgramPath: string = programBeside(addon.path);
