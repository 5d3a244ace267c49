/**
 * Pages of ublk requests in tables of registered buffers, where the driver registers them for a process.
 *
 * ```
 *   tag ─ FETCH names a place ─▶ request ─▶ table[place] = pages ─▶ I/O of the ring ─▶ COMMIT ─▶ table[place] is free
 * ```
 */
import type { Io } from "./medium.js";
import type { SimRing } from "./sim-ring.js";

export class RequestPages {
  readonly bytes: Uint8Array;
  /** A read's pages may only be read into, a write's only read from. */
  readonly isRead: boolean;
  readonly #ios: Io[] = [];

  constructor(bytes: Uint8Array, isRead: boolean) {
    this.bytes = bytes;
    this.isRead = isRead;
  }

  /** I/O uses the pages, even after its process's death. */
  add(io: Io): void {
    this.#ios.push(io);
  }

  get isUsed(): boolean {
    return this.#ios.some(({ state }) => state !== "executed");
  }
}

/** Registers pages in a ring's table. @returns function that unregisters them, or undefined if it failed */
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
