/** The functions of the uring addon, answered by the simulated kernel. */
import type { NativeMapping, NativeRing, UringNative } from "@blksnap/uring/testing";
import { BlockDevice } from "./block-device.js";
import { Errno, Killed } from "./errno.js";
import type { SimMachine } from "./machine.js";
import type { Mapping } from "./memory.js";
import { EventCounter, RegularFile } from "./nodes.js";
import type { OpenFile, SimProcess } from "./process.js";
import { SimRing } from "./sim-ring.js";

const GETEVENTS = 1;
const REGISTERED_RING = 0x10;
const MADV_DONTNEED_LOCKED = 24;
const LockType = { READ: 0, WRITE: 1, UNLOCK: 2 } as const;
const THREAD_ID = 1;
const ENTRIES_MAX = 32_768;

class RingFile extends EventCounter {}

/** Notifies the event loop of a ring's completions, once for each arm(). */
class SimWatcher {
  readonly #machine: SimMachine;
  readonly #ring: SimRing;
  readonly #process: SimProcess;
  readonly #callback: () => void;
  #isArmed = false;
  #isClosed = false;

  constructor(machine: SimMachine, fd: number, callback: () => void) {
    const ring = machine.rings.get(fd);
    if (ring === undefined) throw new Error("a watcher of what is not a ring");
    this.#machine = machine;
    this.#ring = ring;
    this.#process = machine.process;
    this.#callback = callback;
    ring.onReady = () => this.#look();
  }

  arm(): void {
    this.#isArmed = true;
    this.#look();
  }

  close(): void {
    this.#isClosed = true;
  }

  ref(): void {}

  unref(): void {}

  #look(): void {
    if (!this.#isArmed || this.#isClosed || this.#ring.ready === 0) return;
    this.#isArmed = false;
    const call = (): void => {
      if (!this.#isClosed) this.#callback();
    };
    this.#machine.scheduler.after(1, call, this.#process, true);
  }
}

export class SimNative {
  readonly #machine: SimMachine;
  /** By the index that registerRingFd() has returned. */
  readonly #registered: (SimRing | undefined)[] = [];
  #hasSysAdmin = true;

  constructor(machine: SimMachine) {
    this.#machine = machine;
  }

  /** The addon's exports. */
  table(): UringNative {
    const machine = this.#machine;
    return {
      createRing: (entries, cqEntries, flags) => this.#createRing(entries, cqEntries, flags),
      closeRing: (handle) => this.#closeRing(handle as SimRing),
      enter: (fd, toSubmit, minComplete, flags) => this.#enter(fd, toSubmit, minComplete, flags),
      registerFilesSparse: (handle, count) => {
        (handle as SimRing).files.length = count;
        return 0;
      },
      updateFile: (handle, index, fd) => this.#updateFile(handle as SimRing, index, fd),
      registerBuffersSparse: (handle, count) => {
        (handle as SimRing).buffers.length = count;
        return 0;
      },
      updateBuffer: (handle, index, address, lengthBytes) => {
        const buffer = lengthBytes === 0 ? undefined : { address, lengthBytes };
        (handle as SimRing).buffers[index] = buffer;
        return 0;
      },
      registerRingFd: (handle) => this.#registerRing(handle as SimRing),
      limitWorkers: () => 0,
      mapMemory: (lengthBytes) => this.#mapped(machine.memory.add(new ArrayBuffer(lengthBytes))),
      mapFile: (fd, offsetBytes, lengthBytes) => this.#mapFile(fd, offsetBytes, lengthBytes),
      bytesOf: (mapping) => (mapping as Mapping).buffer,
      unmap: (mapping) => {
        const { users } = mapping as Mapping;
        if (users > 0) machine.violation(`memory was unmapped under ${users} pieces of I/O`);
        machine.runningProcess?.mappings.delete(mapping as Mapping);
        machine.memory.remove(mapping as Mapping);
        return 0;
      },
      advise: (mapping, offsetBytes, lengthBytes, advice) =>
        this.#advise(mapping as Mapping, offsetBytes, lengthBytes, advice),
      ioctl: (fd, request, argument) => this.#ioctl(fd, request, argument),
      ioctlAsync: (fd, request, argument) =>
        machine.later(() => this.#ioctl(fd, request, argument)),
      lockFile: (fd, type) => this.#lockFile(fd, type),
      lockFileAsync: (fd, type) => machine.later(() => this.#lockFile(fd, type)),
      // Used for programs of LVM, which do not exist here.
      lockWholeFile: () => 0,
      endDirectIo: (fd) => {
        machine.process.file(fd, "fcntl").isDirect = false;
        return 0;
      },
      eventFd: (initial) => {
        const counter = new EventCounter(machine.volatileFs);
        counter.value = BigInt(initial);
        return machine.openMemory(counter, "anon_inode:[eventfd]");
      },
      memoryFile: (name) => {
        const file = new RegularFile(machine.volatileFs, 0o600, machine.random);
        file.links = 0;
        return machine.openMemory(file, `/memfd:${name}`);
      },
      listenLocal: () => -Errno.EPERM,
      duplicate: () => -Errno.EPERM,
      socketPair: () => -Errno.EPERM,
      setSocketOption: () => -Errno.EPERM,
      prctl: () => 0,
      lockMemory: () => 0,
      threadId: () => THREAD_ID,
      endProcess: () => machine.die(),
      guardThread: () => 0,
      releaseThread: () => 0,
      replaceProcess: () => -Errno.EPERM,
      setAffinity: () => 0,
      readClock: (us) => {
        us[0] = machine.upMs * 1000;
        return 0;
      },
      sendNow: () => -Errno.EPERM,
      sendDatagram: (_path, text) => text.length,
      setCapability: (_capability, effective) => {
        const was = this.#hasSysAdmin ? 1 : 0;
        this.#hasSysAdmin = effective;
        return was;
      },
      directIoAlignment: (fd) => this.#directIoAlignment(fd),
      Watcher: watcherOf(machine),
    };
  }

  #advise({ bytes, users }: Mapping, at: number, lengthBytes: number, advice: number): number {
    if (advice !== MADV_DONTNEED_LOCKED) return 0;
    if (users > 0) this.#machine.violation(`memory was discarded under ${users} pieces of I/O`);
    bytes.fill(0, at, at + lengthBytes);
    return 0;
  }

  #registerRing(ring: SimRing): number {
    const free = this.#registered.findIndex((other) => other === undefined || other.isClosed);
    const index = free < 0 ? this.#registered.length : free;
    this.#registered[index] = ring;
    return index;
  }

  #createRing(entries: number, cqEntries: number, flags: number): NativeRing | number {
    if (entries < 1 || entries > ENTRIES_MAX || cqEntries < entries) return -Errno.EINVAL;
    const { process, rings, random } = this.#machine;
    const fd = this.#machine.openMemory(
      new RingFile(this.#machine.volatileFs),
      "anon_inode:[io_uring]",
    );
    const ring = new SimRing(fd, entries, cqEntries, flags, random, () => {
      rings.delete(fd);
      process.endings.delete(ring);
    });
    rings.set(fd, ring);
    process.endings.add(ring);
    return ring.native;
  }

  #closeRing(ring: SimRing): void {
    if (ring.isClosed) return;
    ring.end();
    const { runningProcess } = this.#machine;
    if (runningProcess?.files.has(ring.fd)) runningProcess.closeFile(ring.fd);
  }

  #enter(fd: number, toSubmit: number, minComplete: number, flags: number): number {
    const { process, operations, isTurning, partialSubmitOneIn } = this.#machine;
    const isRegistered = (flags & REGISTERED_RING) !== 0;
    const ring = isRegistered ? this.#registered[fd] : this.#machine.rings.get(fd);
    if (ring === undefined || ring.isClosed) return -Errno.EBADF;
    const offered = Math.min(toSubmit, ring.offered);
    const taken = ring.taken(offered, partialSubmitOneIn);
    operations.submit(ring, taken, process);
    // A call that submits only a part does not wait.
    const waits = minComplete > 0 && taken === toSubmit && !isTurning;
    while (waits && ring.ready < minComplete) {
      if (!this.#machine.stepMachine()) throw new Killed("a thread waits for what never comes");
    }
    if ((flags & GETEVENTS) !== 0) ring.post();
    return taken;
  }

  #updateFile(ring: SimRing, index: number, fd: number): number {
    if (index >= ring.files.length) return -Errno.EINVAL;
    if (fd < 0) {
      ring.setFile(index, undefined);
      return 0;
    }
    const open = this.#machine.process.files.get(fd);
    if (open === undefined) return -Errno.EBADF;
    open.hold();
    ring.setFile(index, open);
    return 0;
  }

  #mapped(mapping: Mapping): NativeMapping {
    this.#machine.process.mappings.add(mapping);
    return { address: mapping.address, mapping };
  }

  #mapFile(fd: number, offsetBytes: number, lengthBytes: number): NativeMapping | number {
    const { process, memory } = this.#machine;
    const open = process.files.get(fd);
    if (open === undefined) return -Errno.EBADF;
    const { node } = open;
    const buffer = node.map(open, offsetBytes, lengthBytes);
    if (typeof buffer === "number") return buffer;
    const onEnd = (): void => {
      // What dying code writes there must not be visible to the next life.
      if (node instanceof RegularFile && !process.isAlive) node.content.unshare();
      else if (!(node instanceof RegularFile)) open.release();
    };
    return this.#mapped(memory.add(buffer, onEnd));
  }

  #ioctl(fd: number, request: number, argument: ArrayBufferView | number): number {
    const open = this.#machine.process.files.get(fd);
    return open === undefined ? -Errno.EBADF : open.node.ioctl(request, argument);
  }

  #lockFile(fd: number, type: number): number {
    const open = this.#machine.process.files.get(fd);
    if (open === undefined) return -Errno.EBADF;
    return lock(open, type);
  }

  #directIoAlignment(fd: number): [number, number] | number {
    const open = this.#machine.process.files.get(fd);
    if (open === undefined) return -Errno.EBADF;
    const { node } = open;
    if (node instanceof BlockDevice) return [4, node.limits.logicalBlockBytes];
    return node instanceof RegularFile && !node.fs.isVolatile ? [4, 512] : [0, 0];
  }
}

function lock(open: OpenFile, type: number): number {
  const { locks } = open.node;
  if (type === LockType.UNLOCK) {
    locks.delete(open);
    return 0;
  }
  for (const [other, how] of locks) {
    if (other !== open && (how === "write" || type === LockType.WRITE)) return -Errno.EAGAIN;
  }
  locks.set(open, type === LockType.WRITE ? "write" : "read");
  return 0;
}

function watcherOf(machine: SimMachine): UringNative["Watcher"] {
  return class extends SimWatcher {
    constructor(fd: number, callback: () => void) {
      super(machine, fd, callback);
    }
  };
}
