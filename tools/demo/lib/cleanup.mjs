/** Undoes steps in reverse order, also after a failure or Ctrl-C. */

export class Interrupted extends Error {}

export class Cleanup {
  #steps = [];
  #controller = new AbortController();

  /** Programs started with this signal end at an interrupt. */
  get signal() {
    return this.#controller.signal;
  }

  interrupt() {
    this.#controller.abort();
  }

  checkInterrupt() {
    if (this.signal.aborted) throw new Interrupted("interrupted");
  }

  /**
   * @param {string} name what is undone, for the message if that fails
   * @param {() => unknown} undo
   * @returns {() => Promise<void>} does it now; it is then not done again
   */
  add(name, undo) {
    const step = { name, undo };
    this.#steps.push(step);
    return async () => {
      this.#steps = this.#steps.filter((other) => other !== step);
      await undo();
    };
  }

  /** Continues after a failure. @returns {Promise<string[]>} what failed */
  async run() {
    const failures = [];
    for (const { name, undo } of this.#steps.splice(0).reverse()) {
      try {
        await undo();
      } catch (error) {
        failures.push(`${name}: ${error.message}`);
      }
    }
    return failures;
  }
}
