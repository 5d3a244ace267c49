/** Operations that run together. */
interface Group {
  /** Resolves when its turn has come. */
  readonly begun: Promise<void>;
  /** One for each that may run at the same time: resolves at the end of the last that had it. */
  readonly places: Promise<void>[];
  joined: number;
}

/** Runs operations one after another. */
export class Serial {
  #last: Promise<unknown> = Promise.resolve();
  /** The last in the row, if others may join it. */
  #group: Group | undefined;

  /** @param turnMs after which the next one begins even if this one is pending; absent: only after its end */
  run<Value>(operation: () => Promise<Value>, turnMs?: number): Promise<Value> {
    this.#group = undefined;
    let begin = (): void => undefined;
    const begun = new Promise<void>((resolve) => {
      begin = resolve;
    });
    const turn = this.#last.then(() => {
      begin();
      return operation();
    });
    this.#last = untilEnd(turn, begun, turnMs);
    return turn;
  }

  /**
   * As run(), but beside those that were added so directly before it, if nothing else waits behind them.
   * @param most how many of them run at the same time
   */
  runTogether<Value>(
    operation: () => Promise<Value>,
    most: number,
    turnMs?: number,
  ): Promise<Value> {
    const before = this.#last;
    const group = this.#group ?? { begun: before.then(nothing), places: [], joined: 0 };
    this.#group = group;
    const place = group.joined++ % most;
    const begun = Promise.all([group.begun, group.places[place]]);
    const turn = begun.then(operation);
    group.places[place] = untilEnd(turn, begun, turnMs);
    this.#last = Promise.all([before, ...group.places]);
    return turn;
  }
}

/** Resolves at the end of a turn, or when it has taken too long. */
function untilEnd(
  turn: Promise<unknown>,
  begun: Promise<unknown>,
  turnMs: number | undefined,
): Promise<void> {
  const ended = turn.then(nothing, nothing);
  if (turnMs === undefined) return ended;
  const late = () => new Promise<void>((resolve) => setTimeout(resolve, turnMs).unref());
  return Promise.race([ended, begun.then(late)]);
}

function nothing(): void {}
