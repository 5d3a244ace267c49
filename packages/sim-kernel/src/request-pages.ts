/**
 * Pages of ublk requests in tables of registered buffers, where a driver puts them in place of a process.
 *
 * ```
 *   tag ─ FETCH names a place ─▶ request ─▶ table[place] = pages ─▶ I/O of the ring ─▶ COMMIT ─▶ table[place] is free
 * ```
 */
import type { Io } from "./medium.js";
import type { SimRing } from "./sim-ring.js";

export class RequestPages {
  readonly bytes: Uint8Array;
  /** A read's pages are only read into, those of a write only read from. */
  readonly isRead: boolean;
  readonly #ios: Io[] = [];

  constructor(bytes: Uint8Array, isRead: boolean) {
    this.bytes = bytes;
    this.isRead = isRead;
  }

  /** A piece of I/O uses them, also when its process has died. */
  add(io: Io): void {
    this.#ios.push(io);
  }

  get isUsed(): boolean {
    return this.#ios.some(({ state }) => state !== "executed");
  }
}

/** Puts pages into a place of a ring's table. @returns how to take them out, or undefined: it cannot be done */
export function registerPages(
  ring: SimRing,
  place: number,
  pages: RequestPages,
): (() => void) | undefined {
  const { buffers } = ring;
  if (place >= buffers.length || buffers[place] !== undefined) return undefined;
  const entry = { address: 0, lengthBytes: pages.bytes.length, pages };
  buffers[place] = entry;
  return () => {
    if (buffers[place] === entry) buffers[place] = undefined;
  };
}
