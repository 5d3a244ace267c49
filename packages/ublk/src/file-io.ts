import { EFAULT, EINVAL, EIO, ENOMEM, ENOTTY, EOPNOTSUPP } from "@blksnap/errors";
import {
  type CompletionHandler,
  FallocateMode,
  FsyncFlag,
  prepareCommand,
  prepareFallocate,
  prepareFsync,
  prepareNop,
  prepareRead,
  prepareReadFixed,
  prepareWrite,
  prepareWriteFixed,
  type Reactor,
  RwFlag,
  SqeFlag,
} from "@blksnap/uring";
import { UblkIoFlag, UblkOp } from "./abi.js";
import { SecondTries } from "./second-tries.js";
import { type CopyThen, NOT_REGISTERED, type RequestQueue } from "./target.js";

/** `BLOCK_URING_CMD_DISCARD` of Linux 6.12: a discard of a block device without a blocking thread. */
export const BLOCK_URING_CMD_DISCARD = 0x1200;

/** How a request was submitted to the file; kept per tag to select the next attempt. */
const Way = { TRANSFER: 0, FINAL: 1, DISCARD_COMMAND: 2, PUNCH_HOLE: 3, UNKNOWN: 4 } as const;

/** Called at the end of a request that was passed on. */
export interface FileIoOwner {
  /** @param result in ublk's form: all bytes, 0, or a negative errno */
  onFileIo(tag: number, result: number): void;
}

/**
 * Passes requests of a queue on to a file or block device as what they are: reads and writes with
 * the tag's buffer, FUA as DSYNC, flush as fdatasync, discard, write-zeroes.
 */
export class FileIo implements CompletionHandler, CopyThen {
  readonly #reactor: Reactor;
  readonly #queue: RequestQueue;
  readonly #owner: FileIoOwner;
  readonly #fileIndex: number;
  readonly #handlerId: number;
  readonly #way: Uint8Array;
  readonly #secondTries: SecondTries;
  readonly #isBlock: boolean;
  #discardCommand: boolean;

  constructor(
    reactor: Reactor,
    queue: RequestQueue,
    fd: number,
    isBlock: boolean,
    owner: FileIoOwner,
  ) {
    this.#reactor = reactor;
    this.#queue = queue;
    this.#owner = owner;
    this.#fileIndex = reactor.addFile(fd);
    this.#handlerId = reactor.addHandler(this);
    this.#way = new Uint8Array(queue.depth);
    this.#secondTries = new SecondTries(reactor, queue.depth, (tag) => this.#start(tag));
    this.#isBlock = isBlock;
    this.#discardCommand = isBlock;
  }

  /** Index of the registered file, for other operations on the same file. */
  get fileIndex(): number {
    return this.#fileIndex;
  }

  /** Starts the request of `tag`; the owner is called at its end. */
  submit(tag: number): void {
    this.#secondTries.begin(tag);
    this.#start(tag);
  }

  #start(tag: number): void {
    const queue = this.#queue;
    switch (queue.op(tag)) {
      case UblkOp.READ:
      case UblkOp.WRITE:
        this.#way[tag] = Way.TRANSFER;
        this.#transfer(tag);
        return;
      case UblkOp.FLUSH:
        this.#way[tag] = Way.FINAL;
        prepareFsync(
          this.#reactor.ring,
          this.#fileIndex,
          FsyncFlag.DATASYNC,
          tag,
          this.#handlerId,
          SqeFlag.FIXED_FILE,
        );
        return;
      case UblkOp.DISCARD:
        if (this.#discardCommand) this.#discard(tag);
        else this.#fallocate(tag, FallocateMode.PUNCH_HOLE, Way.PUNCH_HOLE);
        return;
      case UblkOp.WRITE_ZEROES:
        if ((queue.flags(tag) & UblkIoFlag.NOUNMAP) !== 0) {
          this.#fallocate(tag, FallocateMode.ZERO_RANGE, Way.FINAL);
        } else {
          this.#fallocate(tag, FallocateMode.PUNCH_HOLE, Way.PUNCH_HOLE);
        }
        return;
      default:
        // Completed like all others: later, not within this call.
        this.#way[tag] = Way.UNKNOWN;
        prepareNop(this.#reactor.ring, tag, this.#handlerId, 0);
    }
  }

  onCompletion(tag: number, result: number): void {
    const way = this.#way[tag];
    if (result < 0 && !this.#isOfFile(tag, result) && this.#secondTries.tryAgain(tag, result))
      return;
    if (way === Way.TRANSFER) {
      // A file or driver below may not accept the memory of this request's pages.
      const isForPages = result === -EINVAL || result === -EFAULT;
      if (isForPages && this.#queue.copyRequest(tag, this)) return;
      // Fewer bytes are an error here: the kernel would take a short write as a complete one.
      const wanted = this.#queue.sectors(tag) << 9;
      this.#owner.onFileIo(tag, result === wanted || result < 0 ? result : -EIO);
      return;
    }
    if (way === Way.UNKNOWN) {
      this.#owner.onFileIo(tag, -EOPNOTSUPP);
      return;
    }
    if (result < 0 && this.#tryAnother(tag, way, result)) return;
    this.#owner.onFileIo(tag, result);
  }

  /**
   * A file's answer to a flush, and not io_uring's, which needs no memory for one. A file reports each loss once: after a
   * failed flush, the next one proves nothing. A device is flushed again.
   */
  #isOfFile(tag: number, result: number): boolean {
    return result === -ENOMEM && !this.#isBlock && this.#queue.op(tag) === UblkOp.FLUSH;
  }

  /** Retries a transfer with a copy of the request's bytes. */
  onCopied(tag: number, result: number): void {
    if (result < 0) this.#owner.onFileIo(tag, result);
    else this.#transfer(tag);
  }

  close(): void {
    this.#secondTries.close();
    this.#reactor.removeHandler(this.#handlerId);
    this.#reactor.removeFile(this.#fileIndex);
  }

  #transfer(tag: number): void {
    const queue = this.#queue;
    const low = queue.startSectorLow(tag);
    const high = queue.startSectorHigh(tag);
    const offsetLow = low << 9;
    const offsetHigh = (high << 9) | (low >>> 23);
    const bufferIndex = queue.bufferIndex[tag];
    if (bufferIndex === NOT_REGISTERED) {
      this.#transferPlain(tag, offsetLow, offsetHigh);
      return;
    }
    if (queue.op(tag) === UblkOp.READ) {
      prepareReadFixed(
        this.#reactor.ring,
        this.#fileIndex,
        bufferIndex,
        queue.bufferLow[tag],
        queue.bufferHigh[tag],
        queue.sectors(tag) << 9,
        offsetLow,
        offsetHigh,
        tag,
        this.#handlerId,
        SqeFlag.FIXED_FILE,
      );
      return;
    }
    prepareWriteFixed(
      this.#reactor.ring,
      this.#fileIndex,
      bufferIndex,
      queue.bufferLow[tag],
      queue.bufferHigh[tag],
      queue.sectors(tag) << 9,
      offsetLow,
      offsetHigh,
      (queue.flags(tag) & UblkIoFlag.FUA) !== 0 ? RwFlag.DSYNC : 0,
      tag,
      this.#handlerId,
      SqeFlag.FIXED_FILE,
    );
  }

  #transferPlain(tag: number, offsetLow: number, offsetHigh: number): void {
    const queue = this.#queue;
    const { ring } = this.#reactor;
    const file = this.#fileIndex;
    const low = queue.bufferLow[tag];
    const high = queue.bufferHigh[tag];
    const bytes = queue.sectors(tag) << 9;
    const handler = this.#handlerId;
    const fixed = SqeFlag.FIXED_FILE;
    if (queue.op(tag) === UblkOp.READ) {
      prepareRead(ring, file, low, high, bytes, offsetLow, offsetHigh, tag, handler, fixed);
      return;
    }
    const flags = (queue.flags(tag) & UblkIoFlag.FUA) !== 0 ? RwFlag.DSYNC : 0;
    prepareWrite(ring, file, low, high, bytes, offsetLow, offsetHigh, flags, tag, handler, fixed);
  }

  #fallocate(tag: number, mode: number, way: number): void {
    const queue = this.#queue;
    const low = queue.startSectorLow(tag);
    const sectors = queue.sectors(tag);
    this.#way[tag] = way;
    prepareFallocate(
      this.#reactor.ring,
      this.#fileIndex,
      mode | FallocateMode.KEEP_SIZE,
      low << 9,
      (queue.startSectorHigh(tag) << 9) | (low >>> 23),
      sectors << 9,
      sectors >>> 23,
      tag,
      this.#handlerId,
      SqeFlag.FIXED_FILE,
    );
  }

  #discard(tag: number): void {
    const queue = this.#queue;
    const low = queue.startSectorLow(tag);
    const sectors = queue.sectors(tag);
    this.#way[tag] = Way.DISCARD_COMMAND;
    const cmd = prepareCommand(
      this.#reactor.ring,
      this.#fileIndex,
      BLOCK_URING_CMD_DISCARD,
      tag,
      this.#handlerId,
      SqeFlag.FIXED_FILE,
    );
    // The range: first byte in the SQE's address, length where the command's bytes begin.
    const words = this.#reactor.ring.sqes32;
    words[cmd - 8] = low << 9;
    words[cmd - 7] = (queue.startSectorHigh(tag) << 9) | (low >>> 23);
    words[cmd] = sectors << 9;
    words[cmd + 1] = sectors >>> 23;
  }

  /** Kernels and file systems support different operations; each further attempt has the same or a stronger effect. */
  #tryAnother(tag: number, way: number, result: number): boolean {
    const unknown = result === -EOPNOTSUPP || result === -EINVAL || result === -ENOTTY;
    if (!unknown) return false;
    if (way === Way.DISCARD_COMMAND) {
      // This kernel does not support it. An EINVAL may concern only this request.
      if (result !== -EINVAL) this.#discardCommand = false;
      this.#fallocate(tag, FallocateMode.PUNCH_HOLE, Way.PUNCH_HOLE);
      return true;
    }
    if (way === Way.PUNCH_HOLE && this.#queue.op(tag) === UblkOp.WRITE_ZEROES) {
      this.#fallocate(tag, FallocateMode.ZERO_RANGE, Way.FINAL);
      return true;
    }
    return false;
  }
}
