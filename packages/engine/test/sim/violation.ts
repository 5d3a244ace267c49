/** The engine violated the model. */
export class Violation extends Error {}

/** Thrown out of a callback of the engine, to end its process in the middle of an event. */
export class CrashSignal extends Error {}

export function require(condition: boolean, message: () => string): void {
  if (!condition) throw new Violation(message());
}
