/** Runs operations one after another. */
export class Serial {
  #last: Promise<unknown> = Promise.resolve();

  /** @param turnMs after which the next one begins even if this one is pending; absent: only after its end */
  run<Value>(operation: () => Promise<Value>, turnMs?: number): Promise<Value> {
    let begin = (): void => undefined;
    const begun = new Promise<void>((resolve) => {
      begin = resolve;
    });
    const turn = this.#last.then(() => {
      begin();
      return operation();
    });
    const ended = turn.then(nothing, nothing);
    const late = () => new Promise((resolve) => setTimeout(resolve, turnMs).unref());
    this.#last = turnMs === undefined ? ended : Promise.race([ended, begun.then(late)]);
    return turn;
  }
}

function nothing(): void {}
