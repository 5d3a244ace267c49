/** Waiting for something that may hang, as long as work can still continue without it. */

/** What the work knows of the caller that waits for it. */
export class Waiting {
  #state: "waiting" | "ready" | "given up" = "waiting";

  get isGivenUp(): boolean {
    return this.#state === "given up";
  }

  /** To be called before anything that only makes sense for a caller that still waits. @throws Error */
  assertWanted(): void {
    if (this.isGivenUp) throw new Error("it answered too late");
  }

  /** All that may hang is done: from now on the caller waits for it. @throws Error where it was given up */
  ready(): void {
    this.assertWanted();
    this.#state = "ready";
  }

  /** @returns false for what is ready, which is not given up */
  giveUp(): boolean {
    if (this.#state === "ready") return false;
    this.#state = "given up";
    return true;
  }
}

/** The outcome of work; undefined when it is given up because it is not ready after `patienceMs`. */
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
  // How it ends then no longer matters.
  return Promise.race([working, late]).finally(() => clearTimeout(timer));
}
