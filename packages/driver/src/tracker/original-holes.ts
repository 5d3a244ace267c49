/**
 * What is known of the holes of originals: of image files, and of loop devices, by the files behind them. Of other
 * devices nothing is known. Looked at apart, as an original may not answer.
 */
import type { KnownHoles } from "@blksnap/data-plane";
import { keyOfNumber } from "@blksnap/linux-block";
import { holesInHelper } from "@blksnap/uring";
import { HOLES_TIMEOUT_MS } from "../time-limits.js";
import type { Tracker } from "./tracker.js";

const LOOP_MAJOR = "7:";

function isLoop(deviceNumber: number): boolean {
  return keyOfNumber(deviceNumber).startsWith(LOOP_MAJOR);
}

type Look = (path: string, timeoutMs: number) => Promise<Float64Array | number>;

export class OriginalHoles {
  readonly #look: Look;
  /** By what they are for: an image's, which stay true, and what could not be found out. */
  readonly #found = new WeakMap<object, Promise<KnownHoles | null>>();

  constructor(look: Look = holesInHelper) {
    this.#look = look;
  }

  /**
   * @param of the export that they are for
   * @param isImage those of an image are looked at once, after its take; a front's for each that asks
   * @returns null where nothing is known
   */
  async of(of: object, tracker: Tracker, isImage: boolean): Promise<KnownHoles | null> {
    const known = this.#found.get(of);
    if (known !== undefined) return await known;
    // Whatever fails here costs its client nothing but the knowledge.
    const looking = this.#lookAt(tracker).catch(() => null);
    this.#found.set(of, looking);
    const found = await looking;
    // An original that does not answer is asked no more: each time would leave a process behind.
    if (!isImage && found !== null) this.#found.delete(of);
    return found;
  }

  async #lookAt({ backing, cbt }: Tracker): Promise<KnownHoles | null> {
    if (backing.kind !== "file" && !isLoop(backing.deviceNumber)) return null;
    // What is written from here on may be missed by who looks, and has this number, or a later one.
    const { generation, changesNumber } = cbt.info();
    const path = `/proc/${process.pid}/fd/${backing.fd}`;
    const ends = await this.#look(path, HOLES_TIMEOUT_MS);
    if (typeof ends === "number") return null;
    return { ends, generation, number: changesNumber + 1 };
  }
}
