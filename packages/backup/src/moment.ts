/** How long something took, on a machine that may sleep, and whose clock may be set. */

/** By a clock that runs while the machine sleeps, and by one that cannot be set. */
export interface Moment {
  readonly wallMs: number;
  readonly upMs: number;
}

export function now(): Moment {
  return { wallMs: Date.now(), upMs: performance.now() };
}

/** By the clock by which it is longer. */
export function msSince(moment: Moment): number {
  const { wallMs, upMs } = now();
  return Math.max(wallMs - moment.wallMs, upMs - moment.upMs);
}
