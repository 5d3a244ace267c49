/** The end of an area's copying: begun once, told to the last caller. */
export class AreaDrop {
  #isDone = false;
  #told: (() => void) | undefined;

  /** True where it is to be begun now. A caller that asks again had given up waiting. */
  begin(onClosed: () => void): boolean {
    if (this.#isDone) {
      onClosed();
      return false;
    }
    const isBegun = this.#told !== undefined;
    this.#told = onClosed;
    return !isBegun;
  }

  /** Nothing refers to the area any more. */
  done(): void {
    this.#isDone = true;
    const told = this.#told;
    this.#told = undefined;
    told?.();
  }
}
