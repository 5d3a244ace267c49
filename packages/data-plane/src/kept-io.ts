/**
 * Sends kept-back discards to the original, one slice at a time. The journal of a persistent tracker records a slice as
 * changed first. A failed slice is dropped: it was a hint.
 */
import type { TrackerEngine } from "@blksnap/engine";
import { BLOCK_URING_CMD_DISCARD } from "@blksnap/ublk";
import {
  assert,
  FallocateMode,
  high32,
  low32,
  prepareCommand,
  prepareFallocate,
  type Reactor,
  SqeFlag,
} from "@blksnap/uring";
import type { AttachRequest } from "./messages.js";
import type { WriteGate } from "./write-gate.js";

const EINVAL = 22;
const ENOTTY = 25;
const EOPNOTSUPP = 95;

export class KeptIo {
  readonly #reactor: Reactor;
  readonly #engine: TrackerEngine;
  readonly #gate: WriteGate | undefined;
  readonly #originalFd: number;
  readonly #handler: number;
  /** Index among the ring's registered files; -1 until it is needed. The front's own index ends with the front. */
  #fileIndex = -1;
  /** Discards as commands need Linux 6.12 and a block device. */
  #knowsCommand: boolean;
  #onIdle: (() => void) | undefined;

  constructor(
    reactor: Reactor,
    engine: TrackerEngine,
    gate: WriteGate | undefined,
    original: Pick<AttachRequest, "originalFd" | "isBlock">,
  ) {
    this.#reactor = reactor;
    this.#engine = engine;
    this.#gate = gate;
    this.#originalFd = original.originalFd;
    this.#knowsCommand = original.isBlock;
    this.#handler = reactor.addHandler({
      onCompletion: (isCommand, result) => this.#onCompletion(isCommand === 1, result),
    });
  }

  /** Sends the engine's slice, and reports its end to the engine. */
  submit(): void {
    if (this.#gate?.admitKept(this.#engine.keptSlice) !== false) this.admitted();
  }

  /** The journal has recorded the slice. */
  admitted(): void {
    if (this.#knowsCommand) this.#discard();
    else this.#punchHole();
  }

  /** Sends nothing more; calls back when nothing is in flight. */
  end(onIdle: () => void): void {
    this.#engine.forgetKept();
    if (this.#engine.keptSlice.inFlight) this.#onIdle = onIdle;
    else onIdle();
  }

  /** After end(), or when the engine is not used any more. */
  close(): void {
    assert(!this.#engine.keptSlice.inFlight, "a discard is on its way");
    this.#reactor.removeHandler(this.#handler);
    if (this.#fileIndex >= 0) this.#reactor.removeFile(this.#fileIndex);
  }

  #discard(): void {
    const [offset] = this.#engine.keptSlice.offsetBytes;
    const [length] = this.#engine.keptSlice.lengthBytes;
    const { ring } = this.#reactor;
    const command = prepareCommand(
      ring,
      this.#file(),
      BLOCK_URING_CMD_DISCARD,
      1,
      this.#handler,
      SqeFlag.FIXED_FILE,
    );
    // The range: first byte in the SQE's address, length where the command's bytes begin.
    ring.sqes32[command - 8] = low32(offset);
    ring.sqes32[command - 7] = high32(offset);
    ring.sqes32[command] = low32(length);
    ring.sqes32[command + 1] = high32(length);
  }

  #punchHole(): void {
    const [offset] = this.#engine.keptSlice.offsetBytes;
    const [length] = this.#engine.keptSlice.lengthBytes;
    prepareFallocate(
      this.#reactor.ring,
      this.#file(),
      FallocateMode.PUNCH_HOLE | FallocateMode.KEEP_SIZE,
      low32(offset),
      high32(offset),
      low32(length),
      high32(length),
      0,
      this.#handler,
      SqeFlag.FIXED_FILE,
    );
  }

  #file(): number {
    if (this.#fileIndex < 0) this.#fileIndex = this.#reactor.addFile(this.#originalFd);
    return this.#fileIndex;
  }

  #onCompletion(isCommand: boolean, result: number): void {
    const isUnknown = result === -EOPNOTSUPP || result === -ENOTTY || result === -EINVAL;
    if (isCommand && isUnknown) {
      // An EINVAL may as well concern only this slice.
      if (result !== -EINVAL) this.#knowsCommand = false;
      this.#punchHole();
      return;
    }
    this.#engine.onKeptDone(result);
    if (this.#engine.keptSlice.inFlight) return;
    const onIdle = this.#onIdle;
    this.#onIdle = undefined;
    onIdle?.();
  }
}
