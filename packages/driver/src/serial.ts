/** Runs operations one after another. */
export class Serial {
  #last: Promise<unknown> = Promise.resolve();

  run<Value>(operation: () => Promise<Value>): Promise<Value> {
    const turn = this.#last.then(operation);
    this.#last = turn.catch(() => undefined);
    return turn;
  }
}
