/** Runs operations one after another: what changes trackers and snapshots must not overlap. */
export class Serial {
  #last: Promise<unknown> = Promise.resolve();

  run<Value>(operation: () => Promise<Value>): Promise<Value> {
    const turn = this.#last.then(operation);
    this.#last = turn.catch(() => undefined);
    return turn;
  }

  /** Runs one last operation: nothing that comes after it is ever begun. */
  runLast(operation: () => void): Promise<void> {
    return new Promise((resolve, reject) => {
      void this.run(() => {
        try {
          resolve(operation());
        } catch (error) {
          reject(error);
        }
        return new Promise<never>(() => undefined);
      });
    });
  }
}
