/**
 * Long work on a reactor, in slices: one per turn of its loop, so that other work runs in between.
 */
import { prepareNop, type Reactor } from "@blksnap/uring";

/** Does a slice of the work. Returns true if there is more. */
export type Slice = () => boolean;

export class Slices {
  readonly #reactor: Reactor;
  readonly #handler: number;
  readonly #work: Slice[] = [];
  #armed = false;
  #closing = false;

  constructor(reactor: Reactor) {
    this.#reactor = reactor;
    this.#handler = reactor.addHandler({ onCompletion: () => this.#onTurn() });
  }

  /** Runs the first slice at once, the others in later turns. */
  run(slice: Slice): void {
    if (!slice()) return;
    this.#work.push(slice);
    this.#arm();
  }

  /** Drops all remaining slices. */
  close(): void {
    this.#closing = true;
    this.#work.length = 0;
    if (!this.#armed) this.#reactor.removeHandler(this.#handler);
  }

  #arm(): void {
    if (this.#armed || this.#closing) return;
    this.#armed = true;
    prepareNop(this.#reactor.ring, 0, this.#handler, 0);
  }

  #onTurn(): void {
    this.#armed = false;
    if (this.#closing) {
      this.#reactor.removeHandler(this.#handler);
      return;
    }
    const slice = this.#work.shift();
    try {
      if (slice?.()) this.#work.push(slice);
    } finally {
      if (this.#work.length > 0) this.#arm();
    }
  }
}
