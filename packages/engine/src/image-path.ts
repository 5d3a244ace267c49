/**
 * The image: the frozen view, and what was written to it.
 *
 *     READ     runs from original and slots                          image-read
 *     WRITE    mark CBT twice, runs and copies into slots            image-write
 *     DISCARD  whole chunks are released                             image-release
 *     FLUSH    done at once: the image does not survive a power cut
 */
import { EINVAL, EIO, EOPNOTSUPP, RequestOp, RunKind } from "./constants.js";
import type { CopyPath } from "./copy-path.js";
import { AreaPhase, type EngineCore } from "./core.js";
import { ImageReader } from "./image-read.js";
import { ImageRelease } from "./image-release.js";
import { ImageWriter } from "./image-write.js";
import { IoStage, IoState } from "./io-state.js";
import { NONE } from "./request-queue.js";
import { RequestState } from "./request-table.js";
import { RunPath } from "./run-path.js";
import { Stat } from "./stats.js";

const LENGTH_MAX_BYTES = 2 ** 30;

export class ImagePath {
  readonly reader: ImageReader;
  readonly writer: ImageWriter;
  readonly release: ImageRelease;
  private readonly core: EngineCore;
  private readonly runPath: RunPath;
  private readonly copyPath: CopyPath;

  constructor(core: EngineCore, copyPath: CopyPath) {
    this.core = core;
    this.copyPath = copyPath;
    this.runPath = new RunPath(core);
    this.reader = new ImageReader(core, this.runPath);
    this.writer = new ImageWriter(core, this.runPath, copyPath);
    this.release = new ImageRelease(core);
  }

  /** A new request. */
  submit(tag: number): void {
    const { core } = this;
    const op = core.image.op[tag];
    if (op === RequestOp.FLUSH) {
      core.io.completeImage(tag, 0);
      return;
    }
    const refused = this.refusal(tag, op);
    if (refused !== 0) {
      core.io.completeImage(tag, refused);
      return;
    }
    core.image.locate(tag, core.geometry);
    core.image.state[tag] = RequestState.ACTIVE;
    if (op === RequestOp.READ) {
      core.counters[Stat.IMAGE_READS]++;
    } else if (op === RequestOp.WRITE) {
      core.counters[Stat.IMAGE_WRITES]++;
      core.cbt.markRequestBoth(core.image.offsetBytes, core.image.lengthBytes, tag);
    } else {
      core.counters[Stat.IMAGE_DISCARDS]++;
    }
    this.advance(tag);
  }

  /** Resumes a request that has nothing in flight. */
  advance(tag: number): void {
    const { core } = this;
    const { image } = core;
    if (core.phase !== AreaPhase.ACTIVE) image.error[tag] = -EIO;
    if (image.error[tag] !== 0) {
      this.complete(tag);
      return;
    }
    // One more than is in flight, so that a ZERO run that is answered at once cannot end the pass.
    image.pending[tag] = 1;
    const stop = this.pass(tag);
    image.pending[tag]--;
    if (image.pending[tag] > 0) return;
    if (stop === 0 || image.error[tag] !== 0) this.complete(tag);
    else core.park(core.front.depth + tag, stop);
  }

  private pass(tag: number): number {
    const op = this.core.image.op[tag];
    if (op === RequestOp.READ) return this.reader.pass(tag);
    return op === RequestOp.WRITE ? this.writer.pass(tag) : this.release.run(tag);
  }

  /** The host's answer to submitRun. */
  onRunDone(run: number, result: number): void {
    const { core } = this;
    const { runs, image } = core;
    if (runs.state[run] !== IoState.LIVE) {
      this.runPath.endLate(run);
      return;
    }
    const tag = runs.tag[run];
    const failed = result !== runs.lengthBytes[run] || runs.isStale[run] === 1;
    const isWrite = runs.kind[run] === RunKind.WRITE_SLOT;
    if (core.phase !== AreaPhase.ACTIVE) image.error[tag] = -EIO;
    else if (failed) image.error[tag] = result < 0 ? result : -EIO;
    else if (isWrite) this.recordDirect(run);
    else if (image.error[tag] === 0 && this.reader.reread(run)) return;
    if (isWrite && runs.copy[run] !== NONE) this.copyPath.release(runs.copy[run]);
    runs.free(run);
    image.pending[tag]--;
    if (image.pending[tag] > 0) return;
    image.moveBack(tag);
    // Most requests end here; only those with more to start go through the queue.
    if (image.error[tag] !== 0 || image.cursorChunk[tag] > image.endChunk[tag]) this.complete(tag);
    else core.wake(core.front.depth + tag);
  }

  /** Gives up runs whose bound has passed. */
  expire(): void {
    const { core } = this;
    const { runs } = core;
    for (let run = 0; run < runs.size; run++) {
      if (runs.state[run] !== IoState.LIVE || runs.inUse[run] === 0) continue;
      if (!core.isLate(runs.since[run], runs.stage[run])) continue;
      if (runs.kind[run] === RunKind.WRITE_SLOT && runs.copy[run] !== NONE) {
        this.copyPath.release(runs.copy[run]);
      }
      this.runPath.setLate(run);
    }
    if (runs.isExhausted()) core.ready.appendAll(core.runWaiters);
  }

  /** The area is closed: results of late runs are no longer wanted. */
  orphan(): void {
    this.runPath.orphan();
  }

  /** The data of the run is in its slot. */
  onRunWritten(run: number): void {
    this.core.runs.stage[run] = IoStage.RECORDING;
  }

  /** Why the request cannot be served: a negative errno, or 0. */
  private refusal(tag: number, op: number): number {
    const { image, geometry, phase } = this.core;
    if (op !== RequestOp.READ && op !== RequestOp.WRITE && op !== RequestOp.DISCARD) {
      return -EOPNOTSUPP;
    }
    if (phase !== AreaPhase.ACTIVE) return -EIO;
    if (!image.isValid(tag, geometry)) return -EINVAL;
    return op !== RequestOp.DISCARD && image.lengthBytes[tag] > LENGTH_MAX_BYTES ? -EINVAL : 0;
  }

  private recordDirect(run: number): void {
    const { runs, copies } = this.core;
    const copy = runs.copy[run];
    if (copy === NONE) return;
    this.core
      .activeMap()
      .setSaved(copies.chunk[copy], copies.rangeStart[copy], copies.rangeEnd[copy]);
  }

  private complete(tag: number): void {
    const { image, runs, io } = this.core;
    if (image.reservedRun[tag] !== NONE) {
      runs.free(image.reservedRun[tag]);
      image.reservedRun[tag] = NONE;
    }
    image.state[tag] = RequestState.IDLE;
    const error = image.error[tag];
    if (error !== 0) io.completeImage(tag, error);
    else if (image.op[tag] === RequestOp.DISCARD) io.completeImage(tag, 0);
    else io.completeImage(tag, image.lengthBytes[tag] | 0);
  }
}
