/**
 * Whether a tracker's state is kept on the medium and may be written.
 *
 * ```
 *   kept ──▶ left ──▶ closed
 *     └───────┴─────────┴──▶ removed
 * ```
 */
type State =
  /** On the medium. Left: the front is about to go. */
  | { readonly kind: "kept" | "left" }
  /** It stays on the medium, and is not written any more. */
  | { readonly kind: "closed" }
  /** No daemon may find it; writes that were in flight to the medium are removed when they arrive. */
  | { readonly kind: "removed"; readonly isClosed: boolean; readonly why: string | undefined };

const NEXT: { readonly [Kind in State["kind"]]: readonly State["kind"][] } = {
  kept: ["left", "closed", "removed"],
  left: ["left", "closed", "removed"],
  closed: ["closed", "removed"],
  removed: ["removed"],
};

export class KeptState {
  #state: State = { kind: "kept" };

  get hasLeft(): boolean {
    return this.#state.kind === "left";
  }

  get isClosed(): boolean {
    const state = this.#state;
    return state.kind === "closed" || (state.kind === "removed" && state.isClosed);
  }

  get isRemoved(): boolean {
    return this.#state.kind === "removed";
  }

  /** Nothing may write it to the medium any more. */
  get isOver(): boolean {
    return this.isClosed || this.isRemoved;
  }

  /** The failure because of which it was removed, if there was one. */
  get failure(): string | undefined {
    return this.#state.kind === "removed" ? this.#state.why : undefined;
  }

  /** @throws Error if it is closed or removed */
  leave(): void {
    this.#become({ kind: "left" });
  }

  close(): void {
    const { failure: why } = this;
    this.#become(this.isRemoved ? { kind: "removed", isClosed: true, why } : { kind: "closed" });
  }

  /** @param why the failure because of which it is removed; absent: the earlier one, if any */
  remove(why: string | undefined = this.failure): void {
    this.#become({ kind: "removed", isClosed: this.isClosed, why });
  }

  #become(next: State): void {
    const { kind } = this.#state;
    if (!NEXT[kind].includes(next.kind)) {
      throw new Error(`assertion failed: what is ${kind} becomes ${next.kind}`);
    }
    this.#state = next;
  }
}
