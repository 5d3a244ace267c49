/** Waiting for work that may hang, while others can continue without it. */

/** What the work knows of its waiting caller. */
export class Waiting {
  #state: "waiting" | "ready" | "given up" = "waiting";

  get isGivenUp(): boolean {
    return this.#state === "given up";
  }

  /** Call it before anything that only makes sense while the caller waits. @throws Error if it has given up */
  assertWanted(): void {
    if (this.isGivenUp) throw new Error("it answered too late");
  }

  /** Nothing is left that may hang: the caller waits from now on. @throws Error if the caller has given up */
  ready(): void {
    this.assertWanted();
    this.#state = "ready";
  }

  /** @returns false if the work is ready, and so not given up */
  giveUp(): boolean {
    if (this.#state === "ready") return false;
    this.#state = "given up";
    return true;
  }
}

/** The outcome of work; undefined if it is given up because it is not ready after `patienceMs`. */
export async function patiently<Value>(
  work: (waiting: Waiting) => Promise<Value>,
  patienceMs: number,
  onGiveUp: () => void,
): Promise<Value | undefined> {
  const waiting = new Waiting();
  const working = work(waiting);
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<undefined>((resolve) => {
    timer = setTimeout(() => {
      if (!waiting.giveUp()) return;
      onGiveUp();
      resolve(undefined);
    }, patienceMs);
  });
  // After giving up, the outcome does not matter.
  return Promise.race([working, late]).finally(() => clearTimeout(timer));
}
