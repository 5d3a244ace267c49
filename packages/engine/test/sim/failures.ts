/** Decides which I/O of the simulation fails, and on which side. */
import { CopyFault } from "@blksnap/engine";
import type { Random } from "./random.js";
import type { SimIo } from "./sim-io.js";

const EIO = 5;
const ENOSPC = 28;

export class Failures {
  private readonly random: Random;
  private readonly isFaulty: boolean;
  private readonly hasSequences: boolean;

  /** @param isFaulty more fails than unreadable sectors and late I/O */
  constructor(random: Random, isFaulty: boolean, hasSequences: boolean) {
    this.random = random;
    this.isFaulty = isFaulty;
    this.hasSequences = hasSequences;
  }

  /** 0, or a negative errno. */
  of(io: SimIo, isCalm: boolean): number {
    const { random } = this;
    if (io.readsOriginal() && isSpoiled(io)) return -EIO;
    if (io.isReportedLate) return random.oneIn(3) ? -EIO : 0;
    if (isCalm || !this.isFaulty) return 0;
    if (io.kind === "copy" && random.oneIn(200)) return -ENOSPC;
    if (this.hasSequences && io.goesAhead && random.oneIn(8)) return random.pick([-EIO, -ENOSPC]);
    if (io.goesBehind && random.oneIn(8)) return random.pick([-EIO, -EIO, -ENOSPC]);
    return random.oneIn(io.kind === "kept" ? 6 : 60) ? -EIO : 0;
  }

  /** Which side of a copy failed: CopyFault. */
  sideOf(io: SimIo, failure: number, isCalm: boolean): number {
    if (failure === 0) return CopyFault.NONE;
    const reads = io.readsOriginal() && failure !== -ENOSPC;
    const unreadable = reads && (isCalm || this.random.oneIn(2) || isSpoiled(io));
    return unreadable ? CopyFault.READ : CopyFault.WRITE;
  }
}

function isSpoiled({ device, first, sectors }: SimIo): boolean {
  const last = Math.floor((first + sectors - 1) / device.blockSectors);
  for (let block = Math.floor(first / device.blockSectors); block <= last; block++) {
    if (device.badBlocks.has(block)) return true;
  }
  return false;
}
