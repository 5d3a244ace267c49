/**
 * The server of one ublk queue, on a reactor's ring.
 *
 * ```
 *   FETCH_REQ × depth ──▶ parked in the kernel
 *                             │ a request arrives
 *                             ▼
 *      descriptors[tag] ──▶ target.queueIo(tag) ── … ──▶ complete(tag, result)
 *                             ▲                               │
 *                             └──── COMMIT_AND_FETCH_REQ ◀────┘
 *   device stops: each parked command ends with -ENODEV; when all have, the queue has ended
 * ```
 *
 * One io descriptor, in 32-bit words (mapped read-only, index = tag):
 *
 * ```
 *   0 op | flags << 8    1 nr_sectors    2,3 start_sector    4,5 address
 * ```
 */
import { EIO } from "@blksnap/errors";
import {
  assert,
  Capability,
  type CompletionHandler,
  high32,
  low32,
  MappedMemory,
  PAGE_BYTES,
  PinnedMemory,
  prepareCommand,
  type Reactor,
  withoutCapability,
} from "@blksnap/uring";
import {
  IO_DESC_BYTES,
  IO_RES_ABORT,
  IoCommand,
  QUEUE_DEPTH_MAX,
  UblkIoFlag,
  UblkOp,
} from "./abi.js";
import { type CopyOwner, RegisteredPages } from "./registered-pages.js";
import { type CopyThen, NOT_REGISTERED, type Target } from "./target.js";

const DESC_WORDS = IO_DESC_BYTES / 4;
const FETCH = IoCommand.FETCH_REQ | 0;
const COMMIT_AND_FETCH = IoCommand.COMMIT_AND_FETCH_REQ | 0;

export interface QueueOptions {
  readonly reactor: Reactor;
  /** Descriptor of /dev/ublkcN. */
  readonly charFd: number;
  readonly queueId: number;
  readonly depth: number;
  readonly maxIoBytes: number;
  /** Its device has ZERO_COPY_FEATURES: the queue has no buffers, and its target must not examine bytes. */
  readonly zeroCopy?: boolean;
  /** A unit of maxIoBytes for each tag; the queue registers what is missing, and frees it. Default: its own. */
  readonly memory?: PinnedMemory | undefined;
  /** Called once, when the device has stopped and every command has returned. */
  readonly onEnd: () => void;
  /** Called with an exception in the target; the request was completed with -EIO. */
  readonly onError: (error: unknown) => void;
}

export class Queue implements CompletionHandler, CopyOwner {
  readonly queueId: number;
  readonly depth: number;
  readonly maxIoBytes: number;
  /** Requests served so far. */
  requests = 0;
  /** Low and high halves of the address of each tag's buffer. */
  readonly bufferLow: Int32Array;
  readonly bufferHigh: Int32Array;
  readonly bufferIndex: Int32Array;
  readonly #options: QueueOptions;
  #descriptors: MappedMemory | undefined;
  #desc32 = new Int32Array(0);
  readonly #buffers: PinnedMemory | undefined;
  /** Of a queue with zero copy. */
  readonly #pages: RegisteredPages | undefined;
  /** The caller that requested a copy of a request that came without. */
  readonly #copyThen: (CopyThen | undefined)[];
  readonly #handlerId: number;
  readonly #inServer: Uint8Array;
  readonly #replaced: (MappedMemory | undefined)[];
  #keepers = 0;
  #isReleased = false;
  #target: Target | undefined;
  #liveTags = 0;
  /** Requests in the server. */
  #busy = 0;

  constructor(options: QueueOptions) {
    const { depth, maxIoBytes, reactor } = options;
    this.#options = options;
    this.queueId = options.queueId;
    this.depth = depth;
    this.maxIoBytes = maxIoBytes;
    this.bufferLow = new Int32Array(depth);
    this.bufferHigh = new Int32Array(depth);
    this.bufferIndex = new Int32Array(depth);
    this.#copyThen = new Array<CopyThen | undefined>(depth).fill(undefined);
    if (options.zeroCopy === true) {
      this.#pages = new RegisteredPages(reactor, options.charFd, this);
    } else {
      const units = { units: depth, unitBytes: maxIoBytes, lengthBytes: depth * maxIoBytes };
      this.#buffers = options.memory ?? new PinnedMemory(reactor, units);
      this.#registerBuffers(this.#buffers);
    }
    this.#inServer = new Uint8Array(depth);
    this.#replaced = new Array<MappedMemory | undefined>(depth).fill(undefined);
    this.#handlerId = reactor.addHandler(this);
  }

  #registerBuffers(buffers: PinnedMemory): void {
    const { depth, maxIoBytes } = this;
    const { address, lengthBytes } = buffers.memory;
    try {
      assert(lengthBytes >= depth * maxIoBytes, "the buffers have too little memory");
      buffers.register();
      for (let tag = 0; tag < depth; tag++) {
        this.bufferIndex[tag] = buffers.bufferIndexOf(tag);
        this.bufferLow[tag] = low32(address + tag * maxIoBytes);
        this.bufferHigh[tag] = high32(address + tag * maxIoBytes);
      }
    } catch (error) {
      buffers.free();
      throw error;
    }
  }

  /**
   * Fetches every tag, once per queue; from the reactor's next turn on requests reach the target.
   *
   * A process can be killed at any step, and Linux (up to 6.15) lets the next one recover the device
   * only when all tags of a queue were fetched or none, and when no process that had the descriptors
   * mapped died before that. So the tags are fetched by one system call, and descriptors are mapped
   * after it.
   *
   * START_DEV reads the partition table of a device whose queues were all fetched with CAP_SYS_ADMIN,
   * and up to Linux 6.18 a server killed meanwhile can neither end nor be replaced (partitions.ts).
   * So the tags are fetched without it; addPartitions() does what the kernel then leaves undone.
   * @throws UringError; the queue then ends with its device
   */
  start(target: Target): void {
    const { ring } = this.#options.reactor;
    this.#target = target;
    ring.reserve(Math.min(this.depth, ring.sqEntries));
    withoutCapability(Capability.SYS_ADMIN, () => {
      for (let tag = 0; tag < this.depth; tag++) {
        this.#command(FETCH, tag, 0);
        this.#liveTags++;
      }
      ring.submit();
    });
    this.#mapDescriptors();
  }

  #mapDescriptors(): void {
    const { charFd, queueId } = this.#options;
    const stride = Math.ceil((QUEUE_DEPTH_MAX * IO_DESC_BYTES) / PAGE_BYTES) * PAGE_BYTES;
    const length = Math.ceil((this.depth * IO_DESC_BYTES) / PAGE_BYTES) * PAGE_BYTES;
    this.#descriptors = MappedMemory.file(charFd, queueId * stride, length, "read");
    this.#desc32 = new Int32Array(this.#descriptors.buffer);
  }

  /** Its commands are in the kernel, or about to be: the queue ends with its device. */
  get isServing(): boolean {
    return this.#liveTags > 0;
  }

  /** Closes a queue that was not started, for example because its target could not be created. */
  discard(): void {
    assert(!this.isServing, "a queue that was started ends with its device");
    this.#release();
  }

  /** Operation of the request: a UblkOp. */
  op(tag: number): number {
    return this.#desc32[tag * DESC_WORDS] & 0xff;
  }

  /** Flags of the request: UblkIoFlag bits. */
  flags(tag: number): number {
    return this.#desc32[tag * DESC_WORDS] & ~0xff;
  }

  /** Length in 512-byte sectors, below 2^31; that of a read or write is at most maxIoBytes. */
  sectors(tag: number): number {
    return this.#desc32[tag * DESC_WORDS + 1];
  }

  /** Low and high halves of the first sector. */
  startSectorLow(tag: number): number {
    return this.#desc32[tag * DESC_WORDS + 2];
  }

  startSectorHigh(tag: number): number {
    return this.#desc32[tag * DESC_WORDS + 3];
  }

  /** The bytes of a tag's buffer, for cold paths: it allocates a view. */
  bufferBytes(tag: number): Uint8Array {
    const own = this.#replaced[tag];
    if (own !== undefined) return new Uint8Array(own.buffer, 0, this.maxIoBytes);
    assert(this.#buffers !== undefined, "a request with zero copy has no buffer");
    return new Uint8Array(this.#buffers.memory.buffer, tag * this.maxIoBytes, this.maxIoBytes);
  }

  /**
   * Replaces a tag's buffer, because abandoned I/O still uses the old one. The new one is used from the completion of
   * its current request on; it is no registered buffer, and belongs to the caller.
   * @param memory at least maxIoBytes
   */
  replaceBuffer(tag: number, memory: MappedMemory): void {
    assert(memory.lengthBytes >= this.maxIoBytes, "a buffer is too small");
    assert(this.#pages === undefined, "a request with zero copy has no buffer");
    this.#replaced[tag] = memory;
    this.bufferIndex[tag] = NOT_REGISTERED;
    this.bufferLow[tag] = low32(memory.address);
    this.bufferHigh[tag] = high32(memory.address);
  }

  /** Keeps the queue's own buffers mapped, even after its end, until releaseBuffers() was called as often. */
  keepBuffers(): void {
    this.#keepers++;
  }

  releaseBuffers(): void {
    assert(this.#keepers > 0, "buffers are released that are not kept");
    this.#keepers--;
    if (this.#keepers === 0 && this.#isReleased) this.#buffers?.free();
  }

  copyRequest(tag: number, then: CopyThen): boolean {
    if (this.#pages === undefined || this.#pages.isCopied(tag)) return false;
    this.#copyThen[tag] = then;
    this.#pages.copyIn(tag);
    return true;
  }

  onCopiedIn(tag: number, result: number): void {
    const then = this.#copyThen[tag];
    this.#copyThen[tag] = undefined;
    if (then !== undefined) then.onCopied(tag, result);
    else if (result < 0) this.complete(tag, result);
    else this.#serve(tag);
  }

  onCopiedOut(tag: number, result: number): void {
    this.#commit(tag, result < 0 ? result : this.sectors(tag) << 9);
  }

  /**
   * Completes a request and fetches the next one for its tag.
   * @param result READ and WRITE: exactly the requested bytes; others: 0; or a negative errno. Never less than
   *   requested: the kernel would take a short write as complete.
   */
  complete(tag: number, result: number): void {
    assert(this.#inServer[tag] === 1, "a request is answered twice");
    this.#inServer[tag] = 0;
    const isRead = result > 0 && this.op(tag) === UblkOp.READ;
    if (isRead && this.#pages?.isCopied(tag) === true) this.#pages.copyOut(tag);
    else this.#commit(tag, result);
  }

  #commit(tag: number, result: number): void {
    this.#command(COMMIT_AND_FETCH, tag, result);
    this.#busy--;
    this.#options.reactor.expectRequest(this.#busy === 0);
  }

  onCompletion(tag: number, result: number): void {
    if (result === 0) {
      this.#inServer[tag] = 1;
      this.#busy++;
      this.requests++;
      this.#options.reactor.expectRequest(false);
      this.#pages?.begin(tag);
      if ((this.flags(tag) & UblkIoFlag.NEED_REG_BUF) === 0) this.#serve(tag);
      else (this.#pages as RegisteredPages).copyIn(tag);
      return;
    }
    if (result !== IO_RES_ABORT) {
      this.#options.onError(new Error(`ublk refused the command of tag ${tag}: ${result}`));
    }
    this.#liveTags--;
    if (this.#liveTags === 0) this.#end();
  }

  #serve(tag: number): void {
    try {
      (this.#target as Target).queueIo(tag);
    } catch (error) {
      this.#options.onError(error);
      if (this.#inServer[tag] === 1) this.complete(tag, -EIO);
    }
  }

  #command(op: number, tag: number, result: number): void {
    const ring = this.#options.reactor.ring;
    const cmd = prepareCommand(ring, this.#options.charFd, op, tag, this.#handlerId, 0);
    const words = ring.sqes32;
    words[cmd] = this.#options.queueId | (tag << 16);
    words[cmd + 1] = result;
    if (this.#pages === undefined) {
      words[cmd + 2] = this.bufferLow[tag];
      words[cmd + 3] = this.bufferHigh[tag];
    } else {
      // The low half of the entry's address.
      words[cmd - 8] = this.#pages.registration(tag);
    }
  }

  #end(): void {
    try {
      this.#target?.close();
    } catch (error) {
      this.#options.onError(error);
    }
    this.#release();
    this.#options.onEnd();
  }

  #release(): void {
    const { reactor } = this.#options;
    reactor.removeHandler(this.#handlerId);
    this.#buffers?.unregister();
    this.#pages?.close();
    this.#isReleased = true;
    if (this.#keepers === 0) this.#buffers?.free();
    // The mapping of the descriptors keeps /dev/ublkcN open; DEL_DEV would wait for it.
    this.#descriptors?.unmap();
  }
}
