/** Measures durations on a machine that may sleep, and whose clock may be set. */

/** From a clock that runs during sleep, and from one that cannot be set. */
export interface Moment {
  readonly wallMs: number;
  readonly upMs: number;
}

export function now(): Moment {
  return { wallMs: Date.now(), upMs: performance.now() };
}

/** The longer of both durations. */
export function msSince(moment: Moment): number {
  const { wallMs, upMs } = now();
  return Math.max(wallMs - moment.wallMs, upMs - moment.upMs);
}
