/**
 * Registered memory for copies of many blocks, shared by all areas of a reactor: looking up and pinning the pages of a
 * plain window, twice per copy, takes longer than copying their content. There are as many windows as copies have been
 * in flight at once, up to a bound; copies beyond that use plain memory.
 *
 * ```
 *   acquire ─▶ a free one ─▶ or a new one: mapped, populated, registered ─▶ or none
 *                            giveBack ─▶ it is taken next: so only few need the processor's cache
 * ```
 *
 * When the reactor has no more areas, all windows are unmapped.
 */
import { MappedMemory, type Reactor } from "@blksnap/uring";

/** A copy of a whole chunk of the default size. */
export const LONG_WINDOW_BYTES: number = 256 * 1024;
const LONG_WINDOWS_MAX = 32;
/** After a failed attempt to make a window, this many copies do without: trying costs more than a copy. */
const DONE_WITHOUT = 1024;
export const NO_WINDOW = -1;

interface LongWindow {
  readonly memory: MappedMemory;
  readonly bufferIndex: number;
}

const byReactor = new WeakMap<Reactor, LongWindows>();

export class LongWindows {
  readonly #reactor: Reactor;
  readonly #windows: LongWindow[] = [];
  /** A stack: the last one is taken first. */
  readonly #free = new Int32Array(LONG_WINDOWS_MAX);
  #freeCount = 0;
  /** How many more copies do without. */
  #withoutLeft = 0;
  #users = 0;

  /** The windows of the reactor. */
  static of(reactor: Reactor): LongWindows {
    const present = byReactor.get(reactor);
    if (present !== undefined) return present;
    const made = new LongWindows(reactor);
    byReactor.set(reactor, made);
    return made;
  }

  private constructor(reactor: Reactor) {
    this.#reactor = reactor;
  }

  /** An area may take windows from now on, until leave(). */
  enter(): void {
    this.#users++;
  }

  /** The area has given back all its windows. */
  leave(): void {
    this.#users--;
    if (this.#users > 0) return;
    for (const { memory, bufferIndex } of this.#windows.splice(0)) {
      this.#reactor.removeBuffer(bufferIndex);
      memory.unmap();
    }
    this.#freeCount = 0;
    this.#withoutLeft = 0;
  }

  /** A window of LONG_WINDOW_BYTES, or NO_WINDOW. */
  acquire(): number {
    if (this.#freeCount > 0) {
      this.#freeCount--;
      return this.#free[this.#freeCount];
    }
    if (this.#windows.length === LONG_WINDOWS_MAX) return NO_WINDOW;
    if (this.#withoutLeft === 0) return this.#make();
    this.#withoutLeft--;
    return NO_WINDOW;
  }

  /** Nothing in flight uses the window any more. */
  giveBack(window: number): void {
    this.#free[this.#freeCount] = window;
    this.#freeCount++;
  }

  memoryOf(window: number): MappedMemory {
    return this.#windows[window].memory;
  }

  /** Index among the ring's registered buffers. */
  bufferIndexOf(window: number): number {
    return this.#windows[window].bufferIndex;
  }

  #make(): number {
    const made = this.#newWindow();
    if (made !== undefined) return this.#windows.push(made) - 1;
    this.#withoutLeft = DONE_WITHOUT;
    return NO_WINDOW;
  }

  #newWindow(): LongWindow | undefined {
    let memory: MappedMemory | undefined;
    try {
      memory = MappedMemory.anonymous(LONG_WINDOW_BYTES);
      const { address, lengthBytes } = memory;
      // Pages that were never touched must not be registered: see copy-windows.ts.
      const isThere = memory.populate(0, lengthBytes);
      if (isThere) return { memory, bufferIndex: this.#reactor.addBuffer(address, lengthBytes) };
    } catch {}
    memory?.unmap();
    return undefined;
  }
}
