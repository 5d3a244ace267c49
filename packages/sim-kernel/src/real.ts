/** What of the real platform the simulation itself needs, before anything is put in its place. */
const { setImmediate } = globalThis;

/** Lets all that has been settled run on. */
export function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
