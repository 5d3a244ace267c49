/** Time limits that only end what hangs. */

/** At least so long; a run that is meant to be long says so with $E2E_TIME_LIMIT_S. */
export function timeLimitMs(least) {
  return Math.max(least, Number(process.env.E2E_TIME_LIMIT_S ?? 0) * 1000);
}
