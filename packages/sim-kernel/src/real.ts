/** What the simulation itself needs from the real platform, taken before anything is replaced. */
const { setImmediate } = globalThis;

/** Lets everything that depends on settled promises run. */
export function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
