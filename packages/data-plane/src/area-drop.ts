/** Dropping an area: begun once, reported to the last caller. */
export class AreaDrop {
  #isDone = false;
  #onClosed: (() => void) | undefined;

  /** True if the drop is to begin now. A caller that asks again has given up waiting for the first answer. */
  begin(onClosed: () => void): boolean {
    if (this.#isDone) {
      onClosed();
      return false;
    }
    const isBegun = this.#onClosed !== undefined;
    this.#onClosed = onClosed;
    return !isBegun;
  }

  /** Nothing uses the area any more. */
  done(): void {
    this.#isDone = true;
    const callback = this.#onClosed;
    this.#onClosed = undefined;
    callback?.();
  }
}
