/** Time limits that only end what hangs. */

/** The minimum; $E2E_TIME_LIMIT_S raises it for long runs. */
export function timeLimitMs(least) {
  return Math.max(least, Number(process.env.E2E_TIME_LIMIT_S ?? 0) * 1000);
}
