/**
 * What planted faults are made of: methods replaced by ones with a mistake that is easy to make. The
 * engine itself knows nothing of this.
 */
import type { TrackerEngine } from "@blksnap/engine";

export type Method = (...args: number[]) => unknown;
// biome-ignore lint/suspicious/noExplicitAny: reaches into private parts of the engine on purpose
export type Inside = any;

export interface PlantedFault {
  name: string;
  /** The seed that has found it before: it is tried first. */
  seed?: number;
  /** Found only where users write in sequence. */
  hasSequences?: boolean;
  /** Found only where copies go behind their writes often. */
  hasFirstWrites?: boolean;
  /** Plants it into every engine that is made. */
  engine?: (engine: Inside) => void;
  /** Plants it into a class; what it returns undoes it. */
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
