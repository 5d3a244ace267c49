/**
 * Holes of originals: of image files, and of loop devices, by the files behind them. For other devices nothing is
 * known. A helper process looks for them, because an original may not answer.
 */
import type { KnownHoles } from "@blksnap/data-plane";
import { keyOfNumber } from "@blksnap/linux-block";
import { bounded, holesInHelper } from "@blksnap/uring";
import { HOLES_PATIENCE_MS, HOLES_PAUSE_MS, HOLES_TIMEOUT_MS } from "../time-limits.js";
import type { Tracker } from "./tracker.js";

const LOOP_MAJOR = "7:";

function isLoop(deviceNumber: number): boolean {
  return keyOfNumber(deviceNumber).startsWith(LOOP_MAJOR);
}

interface Options {
  readonly look?: (path: string, timeoutMs: number) => Promise<Float64Array | number>;
  readonly nowMs?: () => number;
  readonly patienceMs?: number;
}

/** What is known for one export. */
interface Knowledge {
  looking: Promise<KnownHoles | null> | undefined;
  /** Holes of an image, which stay true; or of a front, if they were found too late for the client that asked. */
  found: KnownHoles | null;
  /** Earliest time of the next search. */
  nextMs: number;
  pauseMs: number;
}

export class OriginalHoles {
  readonly #look: NonNullable<Options["look"]>;
  readonly #nowMs: () => number;
  readonly #patienceMs: number;
  readonly #known = new WeakMap<object, Knowledge>();

  constructor({
    look = holesInHelper,
    nowMs = () => performance.now(),
    patienceMs = HOLES_PATIENCE_MS,
  }: Options = {}) {
    this.#look = look;
    this.#nowMs = nowMs;
    this.#patienceMs = patienceMs;
  }

  /**
   * @param of the export
   * @param isImage the holes of an image are looked up once, after its take; those of a front for each client
   * @returns null if nothing is known, or not in time
   */
  async of(of: object, tracker: Tracker, isImage: boolean): Promise<KnownHoles | null> {
    const known = this.#knowledgeOf(of);
    const earlier = known.found;
    if (earlier !== null) {
      if (!isImage) known.found = null;
      return earlier;
    }
    if (known.looking === undefined && this.#nowMs() >= known.nextMs) this.#begin(known, tracker);
    if (known.looking === undefined) return null;
    const late = new Error("not in time");
    const found = await bounded(known.looking, this.#patienceMs, () => late).catch(() => null);
    if (!isImage && found !== null && known.found === found) known.found = null;
    return found;
  }

  #knowledgeOf(of: object): Knowledge {
    let known = this.#known.get(of);
    if (known === undefined) {
      known = { looking: undefined, found: null, nextMs: 0, pauseMs: HOLES_PAUSE_MS };
      this.#known.set(of, known);
    }
    return known;
  }

  #begin(known: Knowledge, tracker: Tracker): void {
    // A failure costs the client nothing but the holes.
    const looking = this.#check(tracker).catch(() => null);
    known.looking = looking.then((found) => {
      known.looking = undefined;
      known.found = found;
      if (found !== null) {
        known.pauseMs = HOLES_PAUSE_MS;
      } else {
        known.nextMs = this.#nowMs() + known.pauseMs;
        known.pauseMs *= 2;
      }
      return found;
    });
  }

  async #check({ backing, cbt }: Tracker): Promise<KnownHoles | null> {
    if (backing.kind !== "file" && !isLoop(backing.deviceNumber)) return null;
    // The look may miss later writes; these have this number, or a higher one.
    const { generation, changesNumber } = cbt.info();
    const path = `/proc/${process.pid}/fd/${backing.fd}`;
    const ends = await this.#look(path, HOLES_TIMEOUT_MS);
    if (typeof ends === "number") return null;
    return { ends, generation, number: changesNumber + 1 };
  }
}
