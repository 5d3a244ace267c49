/**
 * Builds planted faults: replaces methods by versions with a plausible mistake. The engine itself does not know of it.
 */
import type { TrackerEngine } from "@blksnap/engine";

export type Method = (...args: number[]) => unknown;
// biome-ignore lint/suspicious/noExplicitAny: reaches into private parts of the engine on purpose
export type Inside = any;

export interface PlantedFault {
  name: string;
  /** A seed that finds it: tried first. */
  seed?: number;
  /** Only writes in sequence find it. */
  hasSequences?: boolean;
  /** Only frequent copies behind their writes find it. */
  hasFirstWrites?: boolean;
  /** Only truncated stores find it. */
  hasCuts?: boolean;
  /** Plants it into every engine that is made. */
  engine?: (engine: Inside) => void;
  /** Plants it into a class; returns the function that undoes it. */
  global?: () => () => void;
}

/** Replaces a method of a class until undone. */
export function replace(
  prototype: Inside,
  name: string,
  by: (original: Method) => Method,
): () => void {
  const original: Method = prototype[name];
  prototype[name] = by(original);
  return () => {
    prototype[name] = original;
  };
}

export function everyNth(times: number): () => boolean {
  let count = 0;
  return () => ++count % times === 0;
}

/** The `sabotage` for a simulation with this fault. */
export function sabotageWith(fault: PlantedFault): (engine: TrackerEngine) => void {
  return (engine) => fault.engine?.(engine);
}
