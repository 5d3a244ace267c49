import { EngineError } from "./errors.js";

/** Throws EngineError ASSERTION unless `condition` holds: a bug of the engine or of its host. */
export function assert(condition: boolean, message: string): asserts condition {
  if (!condition) throw new EngineError("ASSERTION", message);
}
